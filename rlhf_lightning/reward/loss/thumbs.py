"""Thumbs: the logistic likelihood around a threshold."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register


@register("reward_loss", "thumbs")
class LogisticThumbs(nn.Module):
    """Thumbs up and down: the odds of a thumbs-up are exp(score - threshold), the threshold is learned.

    The responses of a ranking said to be all bad count as thumbs-downs. All annotators share the threshold. The score is in log-odds, as
    Bradley-Terry's is, so that thumbs and comparisons train one score together.
    """

    kinds = ("thumbs",)

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.0))

    def forward(self, scores: Tensor, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """[U] scores to losses [T] (negative log-likelihoods in nats) and weights [T]."""
        thumbs = batch.thumbs
        losses = binary_cross_entropy_with_logits(scores[thumbs.item] - self.threshold, thumbs.up.to(scores.dtype), reduction="none")
        return losses, thumbs.weight
