"""Pairs with ties: Rao and Kupper's threshold."""

from __future__ import annotations

import math

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, ErrorRate
from rlhf_lightning.reward.loss._ties import PairsAndTies

START = 0.5
MIN_THRESHOLD = 1e-6
"""Without ties the threshold falls towards 0, whose logarithm is infinite."""


def rao_kupper(difference: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [P] of first wins, second wins and a tie (Rao and Kupper 1967, eq. 2.1).

    Worths are exp(score), theta = exp(threshold). The first wins with probability sigmoid(difference - threshold); a perceived difference
    below the threshold is a tie. At threshold 0 there are no ties, and it is Bradley and Terry's model.
    """
    first, second = logsigmoid(difference - threshold), logsigmoid(-difference - threshold)
    return first, second, torch.expm1(2 * threshold).log() + first + second


@register("reward_loss", "rao_kupper", needs=["annotators"])
class RaoKupper(PairsAndTies):
    """Pairs, edits and ties: perceived differences below a threshold are ties (Rao-Kupper).

    In place of bradley_terry, which leaves ties out. The threshold (log-odds, above 0) is learned, as softplus of a parameter.

    Args:
        annotators: number of judgements of each annotator.
        margin_coef: log-odds of a margin of 1; margins come with the feedback.
        annotator_noise: "learned": learn each annotator's rate of stating the opposite; ties have no errors.
        error_rate: the initial typical rate.
    """

    def __init__(
        self,
        annotators: Tensor | None = None,
        *,
        margin_coef: NonNegativeFloat = 0.0,
        annotator_noise: AnnotatorNoise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__(annotators, margin_coef=margin_coef, annotator_noise=annotator_noise, error_rate=error_rate)
        self.raw_threshold = nn.Parameter(torch.tensor(math.log(math.expm1(START))))

    @property
    def threshold(self) -> Tensor:
        """The difference of scores, in log-odds, with even odds of a decision for the better one."""
        return softplus(self.raw_threshold).clamp(min=MIN_THRESHOLD)

    def outcomes(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return rao_kupper(difference, self.threshold)
