"""Ratings as ordered levels: the cumulative logit."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, ErrorRate, PerAnnotator, error_model

MAX_LEVELS = 101
TOLERANCE = 1e-3


def cumulative_logit(position: Tensor, level: Tensor, first: Tensor, log_gaps: Tensor) -> Tensor:
    """Log-probability [M] of levels 0 to K, P(level <= k) = sigmoid(threshold_k - position).

    Source: McCullagh 1980, eq. 2.1.

    Args:
        position, level: [M]. first: [M] the lowest threshold. log_gaps: [M, K - 1] logarithms of the gaps between thresholds, so that
            they stay in order.
    """
    thresholds = torch.cat([first[:, None], first[:, None] + log_gaps.exp().cumsum(1)], 1)
    last = thresholds.shape[1]
    upper = thresholds.gather(1, level.clamp(max=last - 1)[:, None])[:, 0]
    lower = thresholds.gather(1, (level - 1).clamp(min=0)[:, None])[:, 0]
    below, above = logsigmoid(upper - position), logsigmoid(position - lower)
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), which loses no digit far from the thresholds.
    within = (level > 0) & (level < last)
    gap = torch.where(within, upper - lower, torch.ones_like(upper))
    between = below + above + torch.log(-torch.expm1(-gap))
    return torch.where(level == 0, below, torch.where(level == last, above, between))


@register("reward_loss", "ordinal", needs=["annotators", "aspects"])
class Ordinal(nn.Module):
    """Ratings as ordered levels: odds of at most level k are exp(threshold_k - slope * score).

    This is the cumulative logit, in place of gaussian_rating if ratings have few levels, unevenly far apart or crowded at an end. Slope and
    ordered thresholds are learned for each aspect; comparisons fix the unit of the score, as for gaussian_rating. Ratings are taken as
    given on their scale.

    Args:
        annotators: [A] number of judgements per annotator. aspects: their number, the whole response included
            (`losses.build_losses`).
        levels: number of levels of a scale, both ends included: 5 for 1 to 5 in whole steps.
        off_level: for a rating between two levels (a scale of other steps, a comment's tone, a mean of several people): "refuse", or
            "round" to the nearest level, half to even.
        shift_spread: standard deviation between annotators, in log-odds, of their shifts of all positions; 0: a common scale.
        annotator_noise: "learned": learn each annotator's rate of choosing a level at random.
        error_rate: the initial typical rate.
    """

    kinds = ("rating",)

    def __init__(
        self,
        annotators: Tensor | None = None,
        aspects: int = 1,
        *,
        levels: Annotated[int, Field(ge=2, le=MAX_LEVELS)] = 7,
        off_level: Literal["refuse", "round"] = "refuse",
        shift_spread: NonNegativeFloat = 1.0,
        annotator_noise: AnnotatorNoise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.levels, self.off_level = levels, off_level
        even = torch.logit(torch.arange(1, levels) / levels)  # at score 0 each level is as likely
        self.log_slope = nn.Parameter(torch.zeros(aspects))
        self.first = nn.Parameter(even[0].repeat(aspects))
        self.log_gaps = nn.Parameter(even.diff().log().repeat(aspects, 1))
        self.annotator_shift = PerAnnotator(annotators, shift_spread)
        self.errors = error_model(annotator_noise, annotators, error_rate)

    @property
    def thresholds(self) -> Tensor:
        """[A, levels - 1] of each aspect, rising, in log-odds."""
        return torch.cat([self.first[:, None], self.first[:, None] + self.log_gaps.exp().cumsum(1)], 1)

    def slopes(self, batch: JudgementBatch) -> Tensor:
        """[M] each rating's factor on the score."""
        return self.log_slope[batch.ratings.aspect].exp()

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [M] (negative log-likelihoods in nats) and weights [M].

        Raises:
            ConfigError: a rating between two levels, if off_level is "refuse".
        """
        ratings = batch.ratings
        annotator, aspect = ratings.annotator, ratings.aspect
        position = self.slopes(batch) * scored.of_aspect(ratings.item, aspect) + self.annotator_shift(annotator)
        log_prob = cumulative_logit(position, self._level(ratings.unit), self.first[aspect], self.log_gaps[aspect])
        log_prob = self.errors.mix(log_prob, torch.full_like(log_prob, -math.log(self.levels)), annotator)
        return self.annotator_shift.penalty(annotator) + self.errors.penalty(annotator) - log_prob, ratings.weight

    def _level(self, unit: Tensor) -> Tensor:
        steps = unit * (self.levels - 1)
        if self.off_level == "refuse" and bool(((steps - steps.round()).abs() > TOLERANCE).any()):
            raise ConfigError(
                f"reward_loss.ordinal.levels={self.levels}, and a rating lies between two of {self.levels} even levels"
                f"{_advice(unit)}; to take the nearer level: reward_loss.ordinal.off_level=round"
            )
        return steps.round().long()


def _advice(unit: Tensor) -> str:
    """Advice: the least number of levels that include these ratings."""
    for levels in range(3, MAX_LEVELS + 1):
        steps = unit * (levels - 1)
        if bool(((steps - steps.round()).abs() <= TOLERANCE).all()):
            return f": {levels} would hold all ratings of this batch"
    return ""
