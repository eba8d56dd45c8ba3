"""phi(x, y) is the vector of the last token."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.registry import register


@register("reward_pooling", "last")
def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The vector of the last token that the mask covers: under causal attention the only one that has read everything.

    Args:
        hidden: [B, L, D]. mask: [B, L], right- or left-padded. The position is the mask's, never found by comparing ids with the pad.

    Returns:
        [B, D].
    """
    positions = mask.long() * (mask.long().cumsum(1))
    return hidden[range(len(hidden)), positions.argmax(1)]
