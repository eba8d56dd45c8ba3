"""The settings that SFT, reward modelling and preference optimisation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import PositiveFloat, PositiveInt


@dataclass(frozen=True)
class LearningRates:
    """The default learning rates of a training.

    Attributes:
        new: of a model that is made on the spot, of about a million parameters.
        pretrained: of any other; ten times as much for adapters.
    """

    new: float
    pretrained: float


@dataclass
class SupervisedSettings:
    """Optimization of a supervised training.

    Attributes:
        epochs: passes over the data.
        learning_rate: the peak of the schedule; null: the default for the model (`default_rates`).
        batch_size: demonstrations (or judgements) of one optimizer step, over all processes.
        micro_batch_size: those that go through the model at a time on each process; null takes the process's whole part of the batch.
            Less memory, the same gradient.
        max_grad_norm: larger gradients are scaled down to this L2 norm.
        max_length: tokens of prompt and response together.
    """

    default_rates: ClassVar[LearningRates]
    epochs: PositiveInt
    learning_rate: PositiveFloat | None = None
    batch_size: PositiveInt = 32
    micro_batch_size: PositiveInt | None = None
    max_grad_norm: PositiveFloat = 1.0
    max_length: PositiveInt = 512
