"""Rankings of three or more: the Plackett-Luce likelihood."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register


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


@register("reward_loss", "plackett_luce")
class PlackettLuce(nn.Module):
    """Rankings of three or more, ties and unranked responses allowed (Plackett-Luce): K responses cost K scores, not K(K-1)/2 pairs."""

    kinds = ("ranking",)

    def forward(self, scores: Tensor, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """[U] scores to losses [R] and weights [R]."""
        orders = batch.orders
        return plackett_luce_loss(scores[orders.items.clamp(min=0)], orders.levels), orders.weight
