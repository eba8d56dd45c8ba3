"""The `plan` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt

from rlhf_lightning.registry import section

DeviceName = Literal[
    "here", "B200", "H200", "H100", "A100-80", "A100-40", "L40S", "L4", "A10G", "V100", "T4", "RTX-4090", "RTX-3090",
]  # fmt: skip


@section("plan")
@dataclass
class PlanSettings:
    """The job that stage=plan plans, and its device.

    Attributes:
        job: the stage to plan; the rest of the command is the job's own.
        device: kind of device of each process; "here" is this machine's, whose speed is measured by a short matrix product.
        response_tokens: mean length of a response; None takes the sampler's maximum, so that the peak is a bound.
        batches: the number of batches of which the largest is planned.
        switches: also plan settings that may take less memory (adapters, a shared critic, micro-batches ...), one at a time.
    """

    job: Literal["sft", "reward", "preference", "ppo", "rounds"] = "ppo"
    device: DeviceName = "here"
    response_tokens: PositiveInt | None = None
    batches: PositiveInt = 20
    switches: bool = True
