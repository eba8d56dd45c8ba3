"""Ratings: a normal likelihood around a line in the score."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss._annotators import Noise, PerAnnotator
from rlhf_lightning.reward.scored_batch import Scored

NOISE_SPREAD = 1.0
"""Standard deviation between annotators of the logarithm of their noise."""
MIDDLE, QUARTER = 0.5, 0.25
"""Of a scale: the zero and the unit of ratings that are taken as they were given."""


@register("reward_loss", "gaussian_rating", needs=["annotators", "aspects"])
class GaussianRating(nn.Module):
    """Ratings: they spread normally around slope * score + offset, all three learned for each aspect.

    Comparisons fix the unit of the score (log-odds); slope, offset and spread translate it to the raters' scale, so that ratings and
    comparisons train one score together, each weighing by its own likelihood. A rating of an aspect is one of that aspect's score where
    the reward head knows it, else of the whole score, with the aspect's own slope (above 0), offset and spread.

    Args:
        annotators: [A] judgements of each. aspects: how many there are, the whole among them (`losses.build_losses`).
        target: "z_score": in standard deviations from the annotator's own mean, which takes each one's bias and scale out beforehand, and
            with them what the annotator's texts were better than other people's; "unit": as given, in quarters of the scale from its
            middle: then let bias_spread and slope_spread learn who is lenient.
        bias_spread: standard deviation between annotators of their own offsets, in the target's unit; 0: all share one.
        slope_spread: standard deviation between annotators of the logarithm of their own slopes; 0: all share one.
        annotator_noise: "learned": each annotator's ratings spread by an amount of one's own, so that who rates at random counts for
            little (its logarithm: NOISE_SPREAD between annotators).
    """

    kinds = ("rating",)

    def __init__(
        self,
        annotators: Tensor | None = None,
        aspects: int = 1,
        *,
        target: Literal["z_score", "unit"] = "z_score",
        bias_spread: NonNegativeFloat = 0.0,
        slope_spread: NonNegativeFloat = 0.0,
        annotator_noise: Noise = "none",
    ) -> None:
        super().__init__()
        self.target = target
        self.log_slope = nn.Parameter(torch.zeros(aspects))
        self.offset = nn.Parameter(torch.zeros(aspects))
        self.log_spread = nn.Parameter(torch.zeros(aspects))
        self.own_offset = PerAnnotator(annotators, bias_spread)
        self.own_log_slope = PerAnnotator(annotators, slope_spread)
        self.own_log_spread = PerAnnotator(annotators, NOISE_SPREAD if annotator_noise == "learned" else 0.0)

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [M] (negative log-likelihoods in nats) and weights [M]."""
        ratings = batch.ratings
        who, aspect = ratings.annotator, ratings.aspect
        slope = (self.log_slope[aspect] + self.own_log_slope(who)).exp()
        predicted = slope * scored.of_aspect(ratings.item, aspect) + self.offset[aspect] + self.own_offset(who)
        log_spread = self.log_spread[aspect] + self.own_log_spread(who)
        said = ratings.z_score if self.target == "z_score" else (ratings.unit - MIDDLE) / QUARTER
        losses = 0.5 * ((said - predicted) / log_spread.exp()) ** 2 + log_spread + 0.5 * math.log(2 * math.pi)
        for own in (self.own_offset, self.own_log_slope, self.own_log_spread):
            losses = losses + own.penalty(who)
        return losses, ratings.weight
