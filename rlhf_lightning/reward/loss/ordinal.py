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
from rlhf_lightning.reward.loss._annotators import ErrorRate, Noise, PerAnnotator, errors
from rlhf_lightning.reward.scored_batch import Scored

MOST_LEVELS = 101
NEAR = 1e-3


def cumulative_logit(position: Tensor, level: Tensor, first: Tensor, log_gaps: Tensor) -> Tensor:
    """Log-probability [M] of levels 0 to K: P(level <= k) = sigmoid(threshold_k - position) (McCullagh 1980, eq. 2.1).

    Args:
        position, level: [M]. first: [M] the lowest threshold. log_gaps: [M, K - 1] logarithms of the steps to each next one, so that the
            thresholds are in order whatever is learned.
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
    """Ratings as ordered levels: the odds of at most level k are exp(threshold_k - slope * score) (cumulative logit).

    In place of gaussian_rating, where ratings have few levels, unevenly far apart or crowded at an end. Slope and ordered thresholds are
    learned for each aspect; comparisons fix the unit of the score, as for gaussian_rating. Ratings are taken as given on their scale.

    Args:
        annotators: [A] judgements of each. aspects: how many there are, the whole among them (`losses.build_losses`).
        levels: how many a scale has, both ends counted: 5 for 1 to 5 in whole steps.
        off_level: what to do with a rating between two levels (a scale of other steps, a comment's tone, a mean of several people):
            "refuse" or "round" to the nearer level, to the even one at the half.
        shift_spread: standard deviation between annotators, in log-odds, of what each adds to every position; 0: all share one scale.
        annotator_noise: "learned": each annotator gives any level alike at a rate of one's own, which is learned.
        error_rate: the typical one before anything is learned.
    """

    kinds = ("rating",)

    def __init__(
        self,
        annotators: Tensor | None = None,
        aspects: int = 1,
        *,
        levels: Annotated[int, Field(ge=2, le=MOST_LEVELS)] = 7,
        off_level: Literal["refuse", "round"] = "refuse",
        shift_spread: NonNegativeFloat = 1.0,
        annotator_noise: Noise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.levels, self.off_level = levels, off_level
        even = torch.logit(torch.arange(1, levels) / levels)  # at score 0 each level is as likely
        self.log_slope = nn.Parameter(torch.zeros(aspects))
        self.first = nn.Parameter(even[0].repeat(aspects))
        self.log_gaps = nn.Parameter(even.diff().log().repeat(aspects, 1))
        self.own_shift = PerAnnotator(annotators, shift_spread)
        self.errors = errors(annotator_noise, annotators, error_rate)

    @property
    def thresholds(self) -> Tensor:
        """[A, levels - 1] of each aspect, rising, in log-odds."""
        return torch.cat([self.first[:, None], self.first[:, None] + self.log_gaps.exp().cumsum(1)], 1)

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [M] (negative log-likelihoods in nats) and weights [M].

        Raises:
            ConfigError: a rating between two levels, where off_level is "refuse".
        """
        ratings = batch.ratings
        who, aspect = ratings.annotator, ratings.aspect
        position = self.log_slope[aspect].exp() * scored.of_aspect(ratings.item, aspect) + self.own_shift(who)
        log_prob = cumulative_logit(position, self._level(ratings.unit), self.first[aspect], self.log_gaps[aspect])
        told = self.errors.mixed(log_prob, torch.full_like(log_prob, -math.log(self.levels)), who)
        return self.own_shift.penalty(who) + self.errors.penalty(who) - told, ratings.weight

    def _level(self, unit: Tensor) -> Tensor:
        steps = unit * (self.levels - 1)
        if self.off_level == "refuse" and bool(((steps - steps.round()).abs() > NEAR).any()):
            raise ConfigError(
                f"reward_loss.ordinal.levels={self.levels}, and a rating stands between two of {self.levels} even levels"
                f"{_fitting(unit)}; to take the nearer level: reward_loss.ordinal.off_level=round"
            )
        return steps.round().long()


def _fitting(unit: Tensor) -> str:
    """The fewest levels that hold these ratings, as advice."""
    for levels in range(3, MOST_LEVELS + 1):
        steps = unit * (levels - 1)
        if bool(((steps - steps.round()).abs() <= NEAR).all()):
            return f": {levels} would hold all ratings of this batch"
    return ""
