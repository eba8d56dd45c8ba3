"""phi(x, y) is the vector of the first token."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.registry import register


@register("reward_pooling", "cls", needs=["bidirectional"])
def cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """The vector of the first token, [CLS] of an encoder (BERT, RoBERTa ...).

    Rejected for a causal trunk, whose first token attends to no other: all texts would score alike.

    Args:
        hidden: [B, L, D]. mask: [B, L], right- or left-padded.

    Returns:
        [B, D].
    """
    return hidden[range(len(hidden)), mask.long().argmax(1)]
