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
    """What stage=plan works out, and for which device.

    Attributes:
        job: the stage that is planned; everything else of the command says how it would run.
        device: of each process; "here" is this machine's, with a short product of matrices to see how fast it is.
        response_tokens: how long responses are on average; None takes the most that the sampler allows, so that the peak is a bound.
        batches: of how many batches the largest is planned.
        switches: also plan what would take less memory (adapters, a shared critic, micro-batches ...), one at a time.
    """

    job: Literal["sft", "reward", "preference", "ppo", "rounds"] = "ppo"
    device: DeviceName = "here"
    response_tokens: PositiveInt | None = None
    batches: PositiveInt = 20
    switches: bool = True
