"""Pairs with ties: the common part of Rao and Kupper's model and Davidson's."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, ErrorRate, error_model


class PairsAndTies(nn.Module):
    """The negative log-likelihood of better, worse and tied, given by a model's `outcomes`.

    Args:
        annotators: [A] number of judgements per annotator (`losses.build_losses`).
        margin_coef: log-odds of a margin of 1; margins come with the feedback, and ties have none.
        annotator_noise: "learned": learn each annotator's rate of stating the opposite; ties have no errors.
        error_rate: the initial typical rate.
    """

    kinds = ("pair", "edit")
    start = 0.0
    """Of the learned parameter of ties."""

    def __init__(
        self,
        annotators: Tensor | None = None,
        *,
        margin_coef: NonNegativeFloat = 0.0,
        annotator_noise: AnnotatorNoise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.margin_coef = margin_coef
        self.errors = error_model(annotator_noise, annotators, error_rate)
        self.tie = nn.Parameter(torch.tensor(self.start))

    def outcomes(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities [P] of first better, second better and a tie, from score differences [P]."""
        raise NotImplementedError

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses (nats) and weights of P pairs and then of T ties, [P + T]."""
        pairs, ties, scores = batch.pairs, batch.ties, scored.scores
        right, wrong, _ = self.outcomes(scores[pairs.better] - scores[pairs.worse] - self.margin_coef * pairs.margin)
        tied = self.outcomes(scores[ties.first] - scores[ties.second])[2]
        losses = self.errors.penalty(pairs.annotator) - self.errors.mix(right, wrong, pairs.annotator)
        return torch.cat([losses, -tied]), torch.cat([pairs.weight, ties.weight])
