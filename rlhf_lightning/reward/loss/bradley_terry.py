"""Pairs: the Bradley-Terry likelihood."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss._annotators import AnnotatorNoise, ErrorRate, error_model


def bradley_terry_loss(log_odds: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(log_odds) per pair [P], from the log-odds that the better one wins; ln 2 at 0.

    Sources: Bradley and Terry 1952; Ouyang et al. 2022, eq. 1.

    Args:
        label_smoothing: the probability that a label is wrong; the loss is then the expected one (Mitchell 2023, "conservative DPO").
    """
    return -(1 - label_smoothing) * logsigmoid(log_odds) - label_smoothing * logsigmoid(-log_odds)


@register("reward_loss", "bradley_terry", needs=["annotators"])
class BradleyTerry(nn.Module):
    """Pairs and edits: the better response should score higher (Bradley-Terry).

    Ties are left out; reward_loss=rao_kupper or davidson, in place of this one, learn from them.

    Details: docs/conventions.md#the-mean-of-a-batch.

    Args:
        annotators: [A] number of judgements per annotator (`losses.build_losses`).
        label_smoothing: the assumed share of wrong labels, the same for all annotators.
        margin_coef: log-odds of a margin of 1; margins come with the feedback, and the log-odds should exceed them (Touvron et al. 2023).
        centering: pulls the sum of a pair's scores towards 0 (Eisenstein et al. 2023).
        annotator_noise: "learned": learn each annotator's rate of stating the opposite.
        error_rate: the initial typical rate.
    """

    kinds = ("pair", "edit")

    def __init__(
        self,
        annotators: Tensor | None = None,
        *,
        label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
        margin_coef: NonNegativeFloat = 0.0,
        centering: NonNegativeFloat = 0.0,
        annotator_noise: AnnotatorNoise = "none",
        error_rate: ErrorRate = 0.1,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.margin_coef, self.centering = label_smoothing, margin_coef, centering
        self.errors = error_model(annotator_noise, annotators, error_rate)

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """Scores of U texts to losses [P] (nats) and weights [P]."""
        pairs = batch.pairs
        better, worse = scored.scores[pairs.better], scored.scores[pairs.worse]
        log_odds = self.errors.flip(better - worse - self.margin_coef * pairs.margin, pairs.annotator)
        losses = bradley_terry_loss(log_odds, self.label_smoothing) + self.centering * (better + worse) ** 2
        return losses + self.errors.penalty(pairs.annotator), pairs.weight
