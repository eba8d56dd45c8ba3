"""A score for each aspect that was rated, and their mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import FiniteFloat
from torch import Tensor, nn

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.head.linear import LinearHead


@register("reward_head", "attributes", needs=["aspects"])
class AttributesHead(nn.Module):
    """A linear score per rated aspect (helpfulness ...) and their weighted sum. [U, D] to [U].

    Ratings of an aspect train its score; other judgements train the total, that is the mixture and the aspects in it (Wang et al. 2024,
    ArmoRM, train the mixture afterwards, by a gate on the prompt; here one likelihood trains both). The sum has no bias, as comparisons
    don't determine one; an aspect's bias starts at 0, its w at N(0, 1/(D+1)).

    Args:
        aspects: names in the order of `Judgements.aspects`; index 0 is None, the response as a whole, which is the total here.
        weights: the fixed mixture by aspect; missing aspects count 0, and a negative weight is for aspects that should be low. null learns
            the mixture, from equal weights that sum to 1; a learned weight may become negative.

    Raises:
        ConfigError: no rated aspect, a weight for an unrated one, or only weights of 0.
    """

    mixture: Tensor

    def __init__(self, width: int, aspects: Sequence[str | None], *, weights: dict[str, FiniteFloat] | None = None) -> None:
        super().__init__()
        self.names = [str(name) for name in aspects[1:]]
        if not self.names:
            raise ConfigError(
                "reward_head=attributes learns from ratings of named aspects, and this feedback has none: "
                "read it with feedback_format=[attributes], or choose reward_head=linear"
            )
        self.columns = nn.ModuleList(LinearHead(width) for _ in self.names)
        self.bias = nn.Parameter(torch.zeros(len(self.names)))
        if weights is None:
            self.mixture = nn.Parameter(torch.full((len(self.names),), 1 / len(self.names)))
        else:
            self.register_buffer("mixture", self._mixture(weights))

    def _mixture(self, weights: dict[str, float]) -> Tensor:
        for name in weights:
            if name not in self.names:
                raise ConfigError(
                    f"reward_head.weights.{name}: no rating in the feedback is of {name!r}{did_you_mean(name, self.names)}; "
                    f"rated were: {', '.join(self.names)}"
                )
        if not any(weights.values()):
            raise ConfigError(f"reward_head.weights gives no aspect a weight: give at least one of {', '.join(self.names)} another than 0")
        return torch.tensor([float(weights.get(name, 0.0)) for name in self.names])

    def forward(self, phi: Tensor) -> ScoredBatch:
        """phi [U, D] to the total [U] and the scores by aspect [U, A], the total first."""
        columns = torch.stack([column(phi).float() for column in self.columns], 1) + self.bias
        total = columns @ self.mixture
        return ScoredBatch(scores=total, aspects=torch.cat([total[:, None], columns], 1))

    def named_weights(self) -> dict[str, float]:
        """The mixture by aspect."""
        return dict(zip(self.names, self.mixture.tolist(), strict=True))
