"""Thumbs: the logistic likelihood around a threshold."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss._annotators import ErrorRate, Noise, PerAnnotator, errors
from rlhf_lightning.reward.scored_batch import Scored


@register("reward_loss", "thumbs", needs=["annotators"])
class LogisticThumbs(nn.Module):
    """Thumbs up and down: the odds of a thumbs-up are exp(score - threshold), the threshold is learned.

    The responses of a ranking said to be all bad count as thumbs-downs. The score is in log-odds, as Bradley-Terry's is, so that thumbs
    and comparisons train one score together.

    Args:
        annotators: [A] judgements of each (`losses.build_losses`).
        threshold_spread: standard deviation between annotators of their own thresholds, in log-odds; 0: all share one.
        annotator_noise: "learned": each annotator's thumb turns the other way at a rate of one's own, which is learned.
        error_rate: the typical one before anything is learned.
    """

    kinds = ("thumbs",)

    def __init__(
        self,
        annotators: Tensor | None = None,
        *,
        threshold_spread: NonNegativeFloat = 0.0,
        annotator_noise: Noise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.0))
        self.own_threshold = PerAnnotator(annotators, threshold_spread)
        self.errors = errors(annotator_noise, annotators, error_rate)

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [T] (negative log-likelihoods in nats) and weights [T]."""
        thumbs = batch.thumbs
        log_odds = scored.scores[thumbs.item] - self.threshold - self.own_threshold(thumbs.annotator)
        told = self.errors.flipped(log_odds, thumbs.annotator)
        losses = binary_cross_entropy_with_logits(told, thumbs.up.to(told.dtype), reduction="none")
        return losses + self.own_threshold.penalty(thumbs.annotator) + self.errors.penalty(thumbs.annotator), thumbs.weight
