"""The expected level of a scale."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from rlhf_lightning.registry import register
from rlhf_lightning.reward.head.linear import LinearHead


@register("reward_head", "ordinal")
class OrdinalHead(nn.Module):
    """The expected level of a scale under ordered thresholds on w·phi, a bounded score. [U, D] to [U].

    A latent l = w·phi(x, y) and thresholds t_1 < ... < t_{L-1} give P(level > k) = sigmoid(l - t_{k+1}) for levels 0 to L-1 (McCullagh
    1980, the cumulative logit), and score = unit * (E[level] - (L-1)/2). Thresholds and unit are learned with w by the chosen losses:
    comparisons make the score's unit log-odds, so that `unit` is the log-odds of one level.

    The score saturates at both ends, as ratings on a short scale do (reward_loss=gaussian_rating fits a line to it), and no policy is paid
    beyond the best level. reward_loss=ordinal has its own thresholds from any head's score to the raters' levels; the usual head for it
    is reward_head=linear, whose score is unbounded.

    At the start all levels are equally likely at l = 0, where the score is 0 with slope 1, as for reward_head=linear.

    Args:
        levels: L, the number of levels of the scale.
    """

    def __init__(self, width: int, *, levels: Annotated[int, Field(ge=2)] = 5) -> None:
        super().__init__()
        self.latent = LinearHead(width)
        first = torch.logit(torch.arange(1, levels) / levels)
        self.first_threshold = nn.Parameter(first[:1].clone())
        self.gaps = nn.Parameter(first.diff().expm1().log())
        self.log_unit = nn.Parameter(torch.tensor(6 * levels / (levels**2 - 1)).log())

    @property
    def thresholds(self) -> Tensor:
        """[L-1], rising."""
        return torch.cat([self.first_threshold, self.first_threshold + softplus(self.gaps).cumsum(0)])

    def level_probabilities(self, phi: Tensor) -> Tensor:
        """[U, L], each row a distribution over the levels, worst first."""
        above = self._above(phi)
        ones = torch.ones_like(above[:, :1])
        return torch.cat([ones, above], 1) - torch.cat([above, 0 * ones], 1)

    def forward(self, phi: Tensor) -> Tensor:
        """Scores [U]."""
        above = self._above(phi)
        return self.log_unit.exp() * (above - 0.5).sum(1)

    def _above(self, phi: Tensor) -> Tensor:
        """P(level > k), [U, L-1]."""
        return torch.sigmoid(self.latent(phi).float()[:, None] - self.thresholds)
