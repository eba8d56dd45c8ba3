"""A value for each token of the response."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from rlhf_lightning.registry import register
from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.head.linear import LinearHead


@register("reward_head", "token", needs=["tokens"])
class TokenHead(nn.Module):
    """A value w·h per token of the response, end-of-text included; the score is their mean or sum.

    h is the trunk's vector of the token, so that under a causal trunk a value doesn't depend on later tokens, and no pooling is used.
    Losses on spans, steps and edits learn from the values, all others from the score. Both are in log-odds. w starts at N(0, 1/(D+1)).

    Args:
        reduction: "mean", independent of length; "sum", with values as shares of the score, like dense rewards, and dependent on length.
    """

    def __init__(self, width: int, *, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.reduction = reduction
        self.value = LinearHead(width)

    def forward(self, hidden: Tensor, mask: Tensor, response_mask: Tensor) -> ScoredBatch:
        """Vectors [U, L, D] and masks [U, L] to scores [U] and values [N]; an empty response scores 0."""
        inside = response_mask.float()
        values = self.value(hidden).float() * inside
        scores = values.sum(1)
        if self.reduction == "mean":
            scores = scores / inside.sum(1).clamp(min=1)
        return ScoredBatch(scores=scores, tokens=values[mask.bool()])
