"""The `sft` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.registry import section
from rlhf_lightning.training.settings import SupervisedSettings


@section("sft")
@dataclass
class SFTSettings(SupervisedSettings):
    """Supervised fine-tuning of the policy on demonstrations, before feedback.

    Longer demonstrations than max_length are left out and counted. Without a warm-up small models learn to ignore the prompt.
    """

    epochs: PositiveInt = 5
    learning_rate: PositiveFloat = 6e-3
    batch_size: PositiveInt = 16
