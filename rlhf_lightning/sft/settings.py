"""The `sft` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning.registry import section


@section("sft")
@dataclass
class SFTSettings:
    """How the policy is warmed up on demonstrations.

    Attributes:
        batch_size: demonstrations of one step, over all processes.
        warmup_fraction: share of the steps over which the learning rate rises from 0; without it small models learn to ignore the prompt.
        max_length: tokens of prompt and response; longer demonstrations are left out and counted.
    """

    epochs: PositiveInt = 5
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 6e-3
    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    max_length: PositiveInt = 512
