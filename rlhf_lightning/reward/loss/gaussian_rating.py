"""Ratings: a normal likelihood around a line in the score."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register


@register("reward_loss", "gaussian_rating")
class GaussianRating(nn.Module):
    """Ratings: z-scores spread normally around slope * score + offset, all three learned.

    Comparisons fix the unit of the score (log-odds); slope, offset and spread translate it to the raters' scale, so that ratings and
    comparisons train one score together, each weighing by its own likelihood. Ratings of every aspect are taken alike, in z-scores among
    their own.
    """

    kinds = ("rating",)

    def __init__(self) -> None:
        super().__init__()
        self.log_slope = nn.Parameter(torch.tensor(0.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.log_spread = nn.Parameter(torch.tensor(0.0))

    def forward(self, scores: Tensor, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """[U] scores to losses [M] (negative log-likelihoods in nats) and weights [M]."""
        predicted = self.log_slope.exp() * scores[batch.ratings.item] + self.offset
        deviation = (batch.ratings.z_score - predicted) / self.log_spread.exp()
        return 0.5 * deviation**2 + self.log_spread + 0.5 * math.log(2 * math.pi), batch.ratings.weight
