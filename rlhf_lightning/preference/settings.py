"""The `preference` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning.registry import section


@section("preference")
@dataclass
class PreferenceSettings:
    """How the policy learns from preferences. The defaults suit models of about a million parameters; lower the learning rate for larger.

    Attributes:
        batch_size: comparisons (or thumbs) of one step, over all processes.
        warmup_fraction: share of the steps over which the learning rate rises from 0.
        max_length: tokens of prompt and response; judgements of longer texts are left out and counted.
        validation_fraction: share of the prompts that is held out.
        smallest_rating_gap: ratings of one annotator that differ by no more than this, in standard deviations, aren't compared.
    """

    epochs: PositiveInt = 2
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 3e-4
    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    max_length: PositiveInt = 512
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    smallest_rating_gap: NonNegativeFloat = 0.0
