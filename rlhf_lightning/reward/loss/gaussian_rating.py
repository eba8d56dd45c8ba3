"""Ratings: a normal likelihood around a line in the score."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, PerAnnotator

NOISE_SPREAD = 1.0
"""Standard deviation between annotators of the logarithm of their noise."""
MIDDLE, QUARTER = 0.5, 0.25
"""Zero and unit of raw ratings on a scale from 0 to 1."""


@register("reward_loss", "gaussian_rating", needs=["annotators", "aspects"])
class GaussianRating(nn.Module):
    """Ratings: normal around slope * score + offset, with slope, offset and spread learned per aspect.

    Comparisons fix the unit of the score (log-odds); slope, offset and spread translate it to the raters' scale, so that ratings and
    comparisons train one score together, each weighted by its likelihood. A rating of an aspect trains that aspect's score if the
    reward head has it, else the total score, with the aspect's slope (above 0), offset and spread.

    Args:
        annotators: [A] number of judgements per annotator. aspects: their number, the whole response included
            (`losses.build_losses`).
        target: "z_score": in standard deviations from the annotator's mean, which removes each one's bias and scale, and also the quality
            of the annotator's texts relative to others'; "unit": raw, in quarters of the scale from its middle: then bias_spread and
            slope_spread can learn the annotators' leniency.
        bias_spread: standard deviation of offsets between annotators, in the target's unit; 0: a common offset.
        slope_spread: standard deviation of log slopes between annotators; 0: a common slope.
        annotator_noise: "learned": learn each annotator's spread (its logarithm: NOISE_SPREAD between annotators), so that random raters
            count for little.
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
        annotator_noise: AnnotatorNoise = "none",
    ) -> None:
        super().__init__()
        self.target = target
        self.log_slope = nn.Parameter(torch.zeros(aspects))
        self.offset = nn.Parameter(torch.zeros(aspects))
        self.log_spread = nn.Parameter(torch.zeros(aspects))
        self.annotator_offset = PerAnnotator(annotators, bias_spread)
        self.annotator_log_slope = PerAnnotator(annotators, slope_spread)
        self.annotator_log_spread = PerAnnotator(annotators, NOISE_SPREAD if annotator_noise == "learned" else 0.0)

    def slopes(self, batch: JudgementBatch) -> Tensor:
        """[M] each rating's factor on the score."""
        ratings = batch.ratings
        log_slope: Tensor = self.log_slope[ratings.aspect] + self.annotator_log_slope(ratings.annotator)
        return log_slope.exp()

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [M] (negative log-likelihoods in nats) and weights [M]."""
        ratings = batch.ratings
        annotator, aspect = ratings.annotator, ratings.aspect
        predicted = self.slopes(batch) * scored.of_aspect(ratings.item, aspect) + self.offset[aspect] + self.annotator_offset(annotator)
        log_spread = self.log_spread[aspect] + self.annotator_log_spread(annotator)
        target = ratings.z_score if self.target == "z_score" else (ratings.unit - MIDDLE) / QUARTER
        losses = 0.5 * ((target - predicted) / log_spread.exp()) ** 2 + log_spread + 0.5 * math.log(2 * math.pi)
        for effect in (self.annotator_offset, self.annotator_log_slope, self.annotator_log_spread):
            losses = losses + effect.penalty(annotator)
        return losses, ratings.weight
