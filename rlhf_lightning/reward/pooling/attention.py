"""phi(x, y) is a learned mean over the tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlhf_lightning.registry import register


@register("reward_pooling", "attention")
class AttentionPooling(nn.Module):
    """The mean vector of the tokens, weighted by softmax(q·h / sqrt(D)) with one learned query q.

    q starts at 0, the plain mean. It is saved with the head's weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def weights(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The weight of each token, [B, L], float32: rows sum to 1, or 0 without tokens; 0 outside the mask."""
        match = (hidden @ self.query.to(hidden.dtype)).float() / math.sqrt(len(self.query))
        inside = mask.bool()
        return match.masked_fill(~inside, torch.finfo(match.dtype).min).softmax(1) * inside

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[B, L, D] and [B, L] to [B, D]."""
        return (self.weights(hidden, mask)[:, None] @ hidden.float())[:, 0].to(hidden.dtype)
