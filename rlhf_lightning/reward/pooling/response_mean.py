"""phi(x, y) is the mean over the response's tokens."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.registry import register
from rlhf_lightning.reward.pooling.mean import mean


@register("reward_pooling", "response_mean", needs=["response"])
def response_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean vector of the response's tokens, end-of-text included, independent of the prompt's length.

    Args:
        hidden: [B, L, D]. mask: [B, L], of the response (needs=["response"]); a row without any gives 0.
    """
    return mean(hidden, mask)
