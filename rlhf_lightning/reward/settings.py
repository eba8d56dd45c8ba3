"""The `reward` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from rlhf_lightning.registry import section
from rlhf_lightning.training.settings import LearningRates, SupervisedSettings


@section("reward")
@dataclass
class RewardSettings(SupervisedSettings):
    """Training of the reward model on judgements of all kinds together.

    A text longer than max_length loses the beginning of its prompt, and the end of a response that is too long by itself.

    Attributes:
        loss_learning_rate: learning rate of the losses' own parameters (a threshold, a rater's slope, an annotator's error rate), a few
            numbers whose size has nothing to do with the model's.
        validation_fraction: fraction of the prompts that is held out.
    """

    default_rates = LearningRates(new=1e-3, pretrained=1e-5)
    epochs: PositiveInt = 3
    loss_learning_rate: PositiveFloat = 0.1
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
