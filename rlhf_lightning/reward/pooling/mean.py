"""phi(x, y) is the mean over the tokens."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.registry import register


@register("reward_pooling", "mean")
def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean vector of the tokens that the mask covers. [B, L, D] and [B, L] to [B, D]."""
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
