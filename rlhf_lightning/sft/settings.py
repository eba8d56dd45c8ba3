"""The `sft` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning.registry import section


@section("sft")
@dataclass
class SFTSettings:
    """How the policy is warmed up on demonstrations.

    Attributes:
        batch_size: demonstrations of one step, over all processes.
        max_length: tokens of prompt and response; longer demonstrations are left out and counted.
    """

    epochs: PositiveInt = 3
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 2e-3
    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    max_length: PositiveInt = 512
