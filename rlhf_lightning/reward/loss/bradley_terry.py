"""Pairs: the Bradley-Terry likelihood."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.registry import register


def bradley_terry_loss(better: Tensor, worse: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(better - worse - margin) per pair [P]; ln 2 at equal scores (Bradley and Terry 1952; Ouyang et al. 2022, eq. 1).

    margin: by how much the scores should differ at least (Touvron et al. 2023). label_smoothing: the probability that a label is wrong.
    """
    difference = better - worse - margin
    return -(1 - label_smoothing) * logsigmoid(difference) - label_smoothing * logsigmoid(-difference)


@register("reward_loss", "bradley_terry")
class BradleyTerry(nn.Module):
    """Pairs and edits: the better response should score higher (Bradley-Terry).

    A tie, of which this model knows nothing, is left out. centering pulls the sum of a pair's scores towards 0 (Eisenstein et al. 2023).
    Margins are the feedback's own, scaled by margin_coef.
    """

    kinds = ("pair", "edit")

    def __init__(
        self,
        *,
        label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0,
        margin_coef: NonNegativeFloat = 0.0,
        centering: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.margin_coef, self.centering = label_smoothing, margin_coef, centering

    def forward(self, scores: Tensor, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        """[U] scores to losses [P] and weights [P]."""
        pairs = batch.pairs
        better, worse = scores[pairs.better], scores[pairs.worse]
        losses = bradley_terry_loss(better, worse, self.margin_coef * pairs.margin, self.label_smoothing)
        return losses + self.centering * (better + worse) ** 2, pairs.weight
