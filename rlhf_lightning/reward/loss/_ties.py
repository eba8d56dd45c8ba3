"""Pairs of which some are ties: what Rao and Kupper's model and Davidson's have in common."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.reward.loss._annotators import ErrorRate, Noise, errors
from rlhf_lightning.reward.scored_batch import Scored


class PairsAndTies(nn.Module):
    """The negative log-likelihood of three outcomes, `outcomes`, that a model with ties states.

    Args:
        annotators: [A] judgements of each (`losses.build_losses`).
        margin_coef: log-odds of a margin of 1, by which a better response's score should be ahead; ties have no margin.
        annotator_noise: "learned": each annotator names the worse one better at a rate of one's own, which is learned; ties stay ties.
        error_rate: the typical one before anything is learned.
    """

    kinds = ("pair", "edit")

    def __init__(
        self,
        annotators: Tensor | None = None,
        *,
        margin_coef: NonNegativeFloat = 0.0,
        annotator_noise: Noise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.margin_coef = margin_coef
        self.errors = errors(annotator_noise, annotators, error_rate)

    def outcomes(self, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From differences of score [P] to log-probabilities that the first is better, that the second is, and of a tie."""
        raise NotImplementedError

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses (nats) and weights of P pairs and then of T ties, [P + T]."""
        pairs, ties, scores = batch.pairs, batch.ties, scored.scores
        right, wrong, _ = self.outcomes(scores[pairs.better] - scores[pairs.worse] - self.margin_coef * pairs.margin)
        tied = self.outcomes(scores[ties.first] - scores[ties.second])[2]
        losses = self.errors.penalty(pairs.annotator) - self.errors.mixed(right, wrong, pairs.annotator)
        return torch.cat([losses, -tied]), torch.cat([pairs.weight, ties.weight])
