"""The `preference` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning.registry import section
from rlhf_lightning.training.settings import SupervisedSettings


@section("preference")
@dataclass
class PreferenceSettings(SupervisedSettings):
    """Preference optimisation of the policy.

    Judgements of texts longer than max_length are left out and counted.

    Attributes:
        validation_fraction: fraction of the prompts that is held out.
        min_rating_gap: ratings by one annotator are compared if they differ by more than this, in standard deviations.
    """

    epochs: PositiveInt = 2
    learning_rate: PositiveFloat = 3e-4
    weight_decay: NonNegativeFloat = 0.0
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    min_rating_gap: NonNegativeFloat = 0.0
