"""The `reward` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning.registry import section


@section("reward")
@dataclass
class RewardSettings:
    """How the reward model is trained.

    Attributes:
        batch_size: judgements of one step, of all kinds together.
        loss_learning_rate: of the losses' own parameters (a threshold, a rater's slope, an annotator's error rate), a few numbers whose
            size has nothing to do with the model's.
        warmup_fraction: share of the steps over which the learning rate rises from 0.
        max_length: tokens of prompt and response; a longer prompt loses its beginning, a response that alone is longer loses its end.
        validation_fraction: share of the prompts that is held out.
        on_bad: a bad line stops the run ("refuse") or is set aside with its reason ("quarantine").
    """

    epochs: PositiveInt = 3
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3
    loss_learning_rate: PositiveFloat = 0.1
    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    max_length: PositiveInt = 512
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    on_bad: Literal["refuse", "quarantine"] = "refuse"
