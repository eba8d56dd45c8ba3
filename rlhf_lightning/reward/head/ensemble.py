"""Several heads on one phi(x, y): a score, and how much they disagree."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from rlhf_lightning.registry import register
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.reward.scored_batch import Scored

TINY = 1e-12
"""Below this variance members count as agreed; the root's slope would be infinite."""


@register("reward_head", "ensemble")
class EnsembleHead(nn.Module):
    """K heads that start apart, each trained by itself; where they disagree the score is lower. [U, D] to [U].

    score = mean - coef * deviation of the members ("mean minus std", Eisenstein et al. 2023; Coste et al. 2024 subtract the variance), or
    their worst. The deviation is that of the K members themselves (divided by K), in the unit of the scores, log-odds.

    Comparisons don't say where a member's 0 is, and members a constant apart would seem to disagree: `level` is taken off each before
    they are put together, its mean score on the training texts (reward.module.level_members; deviates from both papers). What members add
    to all responses to one prompt is as unknown; reward_loss.bradley_terry.centering holds it near 0.

    Args:
        members: K. member: what each of them is.
        hidden: width of a member's hidden layer, for member=mlp.
        aggregation: the mean less coef * deviation, or the worst member's score.
        coef: how much disagreement costs, for aggregation=mean; 0 is the plain mean.
        bootstrap: each member learns from prompts drawn with replacement (reward.bootstrap), else they differ by their start alone.
        seed: of those draws.

    Attributes:
        level: [K] what is taken off each member's score; 0 until it is set.
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

    def forward(self, phi: Tensor) -> Scored:
        """phi [U, D] to scores [U] and the members' own, `level` taken off, [K, U]; their standard deviation is the disagreement."""
        members = torch.stack([member(phi).float() for member in self.members]) - self.level[:, None]
        if self.aggregation == "worst":
            return Scored(scores=members.min(0).values, members=members)
        deviation = members.var(0, correction=0).clamp(min=TINY).sqrt()
        return Scored(scores=members.mean(0) - self.coef * deviation, members=members)
