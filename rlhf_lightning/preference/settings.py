"""The `preference` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

from rlhf_lightning.registry import section
from rlhf_lightning.training.settings import LearningRates, SupervisedSettings


@section("preference")
@dataclass
class PreferenceSettings(SupervisedSettings):
    """Preference optimisation of the policy.

    Judgements of texts longer than max_length are left out and counted.

    Attributes:
        validation_fraction: fraction of the prompts that is held out.
        min_rating_gap: ratings by one annotator are compared if they differ by more than this, in standard deviations.
    """

    default_rates = LearningRates(new=3e-4, pretrained=1e-6)
    epochs: PositiveInt = 2
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    min_rating_gap: NonNegativeFloat = 0.0
