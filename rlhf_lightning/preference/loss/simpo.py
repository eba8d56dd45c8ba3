"""Simple preference optimisation: mean log-probabilities with a margin, without a reference."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from rlhf_lightning.preference.record import Answers, Compared
from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss.bradley_terry import bradley_terry_loss


@register("preference_loss", "simpo")
class SimPO:
    """Bradley-Terry with a margin, on mean log-probabilities of tokens as rewards.

    Meng et al. 2024, eq. 6; without a reference.

    Details: docs/conventions.md#simpo-s-margin.

    Args:
        beta: reward of a nat per token.
        gamma: the margin by which the better response's reward should exceed the other's; the paper takes 0.3 to 0.8 of beta.
        label_smoothing: share of labels taken to be wrong.
    """

    def __init__(
        self, *, beta: PositiveFloat = 2.0, gamma: NonNegativeFloat = 1.0, label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    ) -> None:
        self.beta, self.gamma, self.label_smoothing = beta, gamma, label_smoothing

    def __call__(self, judged: Compared) -> Tensor:
        return bradley_terry_loss(self.rewards(judged.chosen) - self.rewards(judged.rejected) - self.gamma, self.label_smoothing)

    def rewards(self, answers: Answers) -> Tensor:
        return self.beta * answers.per_token()
