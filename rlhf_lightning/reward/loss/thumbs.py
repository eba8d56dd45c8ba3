"""Thumbs: the logistic likelihood around a threshold."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, ErrorRate, PerAnnotator, error_model


@register("reward_loss", "thumbs", needs=["annotators"])
class LogisticThumbs(nn.Module):
    """Thumbs up and down: the odds of a thumbs-up are exp(score - threshold), with a learned threshold.

    The responses of a ranking marked as all bad count as thumbs-downs. The score is in log-odds, as Bradley-Terry's is, so that thumbs
    and comparisons train one score together.

    Args:
        annotators: [A] number of judgements per annotator (`losses.build_losses`).
        threshold_spread: standard deviation of thresholds between annotators, in log-odds; 0: a common threshold.
        annotator_noise: "learned": learn each annotator's rate of giving the opposite thumb.
        error_rate: the initial typical rate.
    """

    kinds = ("thumbs",)

    def __init__(
        self,
        annotators: Tensor | None = None,
        *,
        threshold_spread: NonNegativeFloat = 0.0,
        annotator_noise: AnnotatorNoise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.0))
        self.annotator_threshold = PerAnnotator(annotators, threshold_spread)
        self.errors = error_model(annotator_noise, annotators, error_rate)

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [T] (negative log-likelihoods in nats) and weights [T]."""
        thumbs = batch.thumbs
        log_odds = scored.scores[thumbs.item] - self.threshold - self.annotator_threshold(thumbs.annotator)
        log_odds = self.errors.flip(log_odds, thumbs.annotator)
        losses = binary_cross_entropy_with_logits(log_odds, thumbs.up.to(log_odds.dtype), reduction="none")
        return losses + self.annotator_threshold.penalty(thumbs.annotator) + self.errors.penalty(thumbs.annotator), thumbs.weight
