"""Pairs with ties: Davidson's geometric mean."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.registry import register
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

    In place of bradley_terry, which leaves ties out. log nu (`tie`) is learned, from nu = 1 (a third of equal responses tie). Unlike
    Rao-Kupper's, it keeps the odds of decided pairs at exp(score difference), Luce's axiom.
    """

    def outcomes(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return davidson(difference, self.tie)
