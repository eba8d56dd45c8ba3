"""Pairs with ties: Davidson's geometric mean."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, ErrorRate
from rlhf_lightning.reward.loss._ties import PairsAndTies


def davidson(difference: Tensor, log_tie: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [P] of first wins, second wins and a tie (Davidson 1970, eq. 2.1).

    Worths are exp(score). The probabilities are as exp(d/2) : exp(-d/2) : nu, nu = exp(log_tie): a tie is nu / 2 times as likely as a
    decision between equals. At nu = 0 there are no ties, and it is Bradley and Terry's model.
    """
    logits = torch.stack([difference / 2, -difference / 2, log_tie.expand_as(difference)])
    first, second, tie = logits.log_softmax(0)
    return first, second, tie


@register("reward_loss", "davidson", needs=["annotators"])
class Davidson(PairsAndTies):
    """Pairs, edits and ties: a tie is likelier the nearer the scores (Davidson).

    In place of bradley_terry, which leaves ties out. log nu is learned, from nu = 1 (a third of equal responses tie). Unlike
    Rao-Kupper's, it keeps the odds of decided pairs at exp(score difference), Luce's axiom.

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
        self.log_tie = nn.Parameter(torch.tensor(0.0))

    def outcomes(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return davidson(difference, self.log_tie)
