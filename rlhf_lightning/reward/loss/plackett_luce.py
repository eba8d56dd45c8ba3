"""Rankings of three or more: the Plackett-Luce likelihood."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss._annotators import ErrorRate, Noise, errors
from rlhf_lightning.reward.scored_batch import Scored


def plackett_luce_loss(scores: Tensor, levels: Tensor) -> Tensor:
    """Negative log-likelihood [R] of each ranking, as choosing the best of what remains, again and again (Plackett 1975; Luce 1959).

    Args:
        scores: [R, K]. levels: [R, K] places, 0 best, equal for a tie, -1 for padding and for what was left unranked.

    Ties follow Breslow's approximation: each of the tied is chosen against all that are not better. Items with nothing below them add
    nothing, and what was left unranked is in no choice. For two items it is the Bradley-Terry loss.
    """
    present = levels >= 0
    remains = (levels[:, None, :] >= levels[:, :, None]) & present[:, None, :]
    worse_exists = ((levels[:, None, :] > levels[:, :, None]) & present[:, None, :]).any(-1) & present
    normaliser = torch.logsumexp(scores[:, None, :].masked_fill(~remains, -torch.inf), dim=-1)
    return torch.where(worse_exists, normaliser - scores, torch.zeros_like(scores)).sum(-1)


@register("reward_loss", "plackett_luce", needs=["annotators"])
class PlackettLuce(nn.Module):
    """Rankings of three or more, ties and unranked responses allowed (Plackett-Luce): K responses cost K scores, not K(K-1)/2 pairs.

    Args:
        annotators: [A] judgements of each (`losses.build_losses`).
        annotator_noise: "learned": each annotator ranks at random at a rate of one's own, which is learned.
        error_rate: the typical one before anything is learned.
    """

    kinds = ("ranking",)

    def __init__(self, annotators: Tensor | None = None, *, annotator_noise: Noise = "none", error_rate: ErrorRate = 0.1) -> None:
        super().__init__()
        self.errors = errors(annotator_noise, annotators, error_rate)

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [R] (nats) and weights [R]."""
        orders = batch.orders
        scores = scored.scores[orders.items.clamp(min=0)]
        # At equal scores every order is as likely: that is what someone says who doesn't look.
        by_error = -plackett_luce_loss(torch.zeros_like(scores), orders.levels)
        told = self.errors.mixed(-plackett_luce_loss(scores, orders.levels), by_error, orders.annotator)
        return self.errors.penalty(orders.annotator) - told, orders.weight
