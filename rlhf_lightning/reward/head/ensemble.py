"""Several heads on one phi(x, y): a score and their disagreement."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead

MIN_VARIANCE = 1e-12
"""Lower bound of the members' variance: the root's slope is infinite at 0."""


@register("reward_head", "ensemble")
class EnsembleHead(nn.Module):
    """K heads with independent starts and losses; disagreement lowers the score. [U, D] to [U].

    score = mean - coef * deviation of the members ("mean minus std", Eisenstein et al. 2023; Coste et al. 2024 subtract the variance), or
    their worst. The deviation is that of the K members themselves (divided by K), in the unit of the scores, log-odds.

    Comparisons don't determine a member's 0, and members a constant apart would seem to disagree: `level`, a member's mean score on the
    training texts, is subtracted before aggregation (reward.module.center_ensemble_members; deviates from both papers). Shifts of all
    responses to one prompt are undetermined too; reward_loss.bradley_terry.centering keeps them near 0.

    Args:
        members: K, the number of heads.
        member: the kind of each head.
        hidden: width of a member's hidden layer, for member=mlp.
        aggregation: the mean less coef * deviation, or the worst member's score.
        coef: cost of disagreement, for aggregation=mean; 0 is the plain mean.
        bootstrap: train each member on prompts sampled with replacement (reward.module), else only their starts differ.
        seed: random seed of those samples.

    Attributes:
        level: [K] subtracted from each member's score; 0 until it is set.
    """

    level: Tensor

    def __init__(
        self,
        width: int,
        *,
        members: Annotated[int, Field(ge=2)] = 5,
        member: Literal["linear", "mlp"] = "linear",
        hidden: PositiveInt = 256,
        aggregation: Literal["mean", "worst"] = "mean",
        coef: NonNegativeFloat = 1.0,
        bootstrap: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.aggregation, self.coef, self.bootstrap, self.seed = aggregation, coef, bootstrap, seed
        self.members = nn.ModuleList(LinearHead(width) if member == "linear" else MLPHead(width, hidden=hidden) for _ in range(members))
        self.register_buffer("level", torch.zeros(members))

    def forward(self, phi: Tensor) -> ScoredBatch:
        """phi [U, D] to scores [U] and members' [K, U], less `level`; their deviation is the disagreement."""
        members = torch.stack([member(phi).float() for member in self.members]) - self.level[:, None]
        if self.aggregation == "worst":
            return ScoredBatch(scores=members.min(0).values, members=members)
        deviation = members.var(0, correction=0).clamp(min=MIN_VARIANCE).sqrt()
        return ScoredBatch(scores=members.mean(0) - self.coef * deviation, members=members)
