"""Rankings of three or more: the Plackett-Luce likelihood."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, ErrorRate, error_model


def plackett_luce_loss(scores: Tensor, levels: Tensor) -> Tensor:
    """Negative log-likelihood [R] of rankings as successive choices (Plackett 1975; Luce 1959).

    Args:
        scores: [R, K]. levels: [R, K] ranks, 0 best, equal for a tie, -1 for padding and unranked items.

    Ties follow Breslow's approximation: each tied item is chosen against all that aren't better. Items with nothing below them add 0, and
    unranked items are in no choice. For two items it is the Bradley-Terry loss.
    """
    present = levels >= 0
    remains = (levels[:, None, :] >= levels[:, :, None]) & present[:, None, :]
    worse_exists = ((levels[:, None, :] > levels[:, :, None]) & present[:, None, :]).any(-1) & present
    normaliser = torch.logsumexp(scores[:, None, :].masked_fill(~remains, -torch.inf), dim=-1)
    return torch.where(worse_exists, normaliser - scores, torch.zeros_like(scores)).sum(-1)


@register("reward_loss", "plackett_luce", needs=["annotators"])
class PlackettLuce(nn.Module):
    """Rankings of three or more, with ties and unranked responses (Plackett-Luce).

    K responses cost K scores, not K(K-1)/2 pairs.

    Details: docs/conventions.md#a-ranking-of-k.

    Args:
        annotators: [A] number of judgements per annotator (`losses.build_losses`).
        annotator_noise: "learned": learn each annotator's rate of ranking at random.
        error_rate: the initial typical rate.
    """

    kinds = ("ranking",)

    def __init__(self, annotators: Tensor | None = None, *, annotator_noise: AnnotatorNoise = "none", error_rate: ErrorRate = 0.1) -> None:
        super().__init__()
        self.errors = error_model(annotator_noise, annotators, error_rate)

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [R] (nats) and weights [R]."""
        orders = batch.orders
        scores = scored.scores[orders.items.clamp(min=0)]
        # A random ranking has the likelihood of equal scores.
        by_error = -plackett_luce_loss(torch.zeros_like(scores), orders.levels)
        log_prob = self.errors.mix(-plackett_luce_loss(scores, orders.levels), by_error, orders.annotator)
        return self.errors.penalty(orders.annotator) - log_prob, orders.weight
