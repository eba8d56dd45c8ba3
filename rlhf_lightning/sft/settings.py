"""The `sft` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveInt

from rlhf_lightning.registry import section
from rlhf_lightning.training.settings import LearningRates, SupervisedSettings


@section("sft")
@dataclass
class SFTSettings(SupervisedSettings):
    """Supervised fine-tuning of the policy on demonstrations, before feedback.

    Longer demonstrations than max_length are left out and counted. Without a warm-up small models learn to ignore the prompt.

    Attributes:
        validation_fraction: fraction of the prompts whose demonstrations are held out for evaluation.every; null: 0.1 under it, else 0.
    """

    default_rates = LearningRates(new=6e-3, pretrained=2e-5)
    epochs: PositiveInt = 5
    batch_size: PositiveInt = 16
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
