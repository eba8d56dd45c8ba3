"""Pairs: the Bradley-Terry likelihood."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.loss._annotators import ErrorRate, Noise, errors
from rlhf_lightning.reward.scored_batch import Scored


def bradley_terry_loss(log_odds: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(log_odds) per pair [P], the log-odds that the better one wins; ln 2 at 0 (Bradley and Terry 1952; Ouyang et al. 2022,
    eq. 1).

    label_smoothing: the probability that a label is wrong; the loss is then the expected one (Mitchell 2023, "conservative DPO").
    """
    return -(1 - label_smoothing) * logsigmoid(log_odds) - label_smoothing * logsigmoid(-log_odds)


@register("reward_loss", "bradley_terry", needs=["annotators"])
class BradleyTerry(nn.Module):
    """Pairs and edits: the better response should score higher (Bradley-Terry).

    A tie, of which this model knows nothing, is left out: reward_loss=rao_kupper and davidson, each in place of this one, learn from it.

    Args:
        annotators: [A] judgements of each (`losses.build_losses`).
        label_smoothing: the share of labels taken to be wrong, the same for everybody.
        margin_coef: log-odds of a margin of 1; margins are the feedback's own, the log-odds should exceed them (Touvron et al. 2023).
        centering: pulls the sum of a pair's scores towards 0 (Eisenstein et al. 2023).
        annotator_noise: "learned": each annotator says the opposite of what is meant at a rate of one's own, which is learned.
        error_rate: the typical one before anything is learned.
    """

    kinds = ("pair", "edit")

    def __init__(
        self,
        annotators: Tensor | None = None,
        *,
        label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
        margin_coef: NonNegativeFloat = 0.0,
        centering: NonNegativeFloat = 0.0,
        annotator_noise: Noise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.margin_coef, self.centering = label_smoothing, margin_coef, centering
        self.errors = errors(annotator_noise, annotators, error_rate)

    def forward(self, scored: Scored, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [P] (nats) and weights [P]."""
        pairs = batch.pairs
        better, worse = scored.scores[pairs.better], scored.scores[pairs.worse]
        log_odds = self.errors.flipped(better - worse - self.margin_coef * pairs.margin, pairs.annotator)
        losses = bradley_terry_loss(log_odds, self.label_smoothing) + self.centering * (better + worse) ** 2
        return losses + self.errors.penalty(pairs.annotator), pairs.weight
