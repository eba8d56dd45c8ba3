"""Pairs with ties: Rao and Kupper's threshold."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from rlhf_lightning.registry import register
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
    """

    start = math.log(math.expm1(START))

    @property
    def threshold(self) -> Tensor:
        """The difference of scores, in log-odds, with even odds of a decision for the better one."""
        return softplus(self.tie).clamp(min=MIN_THRESHOLD)

    def outcomes(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return rao_kupper(difference, self.threshold)
