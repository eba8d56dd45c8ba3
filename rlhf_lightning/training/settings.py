"""The settings that SFT, reward modelling and preference optimisation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class SupervisedSettings:
    """Optimization of a supervised training. The defaults suit models of about a million parameters.

    Attributes:
        epochs: passes over the data.
        learning_rate: the peak of the schedule; lower it for larger models.
        batch_size: demonstrations (or judgements) of one optimizer step, over all processes.
        micro_batch_size: those that go through the model at a time on each process; null takes the process's whole part of the batch.
            Less memory, the same gradient.
        learning_rate_schedule: after the warm-up, "linear" falls to 0 at the last step and "constant" stays.
        warmup_fraction: fraction of the steps over which the learning rate rises from 0.
        weight_decay: decoupled, as in AdamW: the fraction of a weight that a step at learning rate 1 removes.
        max_grad_norm: larger gradients are scaled down to this L2 norm.
        max_length: tokens of prompt and response together.
    """

    epochs: PositiveInt
    learning_rate: PositiveFloat
    batch_size: PositiveInt = 32
    micro_batch_size: PositiveInt | None = None
    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: NonNegativeFloat = 0.01
    max_grad_norm: PositiveFloat = 1.0
    max_length: PositiveInt = 512
