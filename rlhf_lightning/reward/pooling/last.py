"""phi(x, y) is the vector of the last token."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.registry import register


@register("reward_pooling", "last")
def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The vector of the last token in the mask, the only one that attends to all under causal attention.

    Details: docs/ppo_details.md#reward-only-at-the-last-token.

    Args:
        hidden: [B, L, D]. mask: [B, L], right- or left-padded. The position comes from the mask, not from pad ids.

    Returns:
        [B, D].
    """
    positions = mask.long() * (mask.long().cumsum(1))
    return hidden[range(len(hidden)), positions.argmax(1)]
