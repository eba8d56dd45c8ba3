"""Weight of each token in the loss of its minibatch: micro-batches add up to the minibatch.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def token_weights(reduction: Callable[[Tensor, Tensor], Tensor], mask: Tensor) -> Tensor:
    """Weight [B, T] of each token in a reduction: its gradient, because a reduction is linear."""
    with torch.enable_grad():
        losses = torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        reduced = reduction(losses, mask)
        return torch.autograd.grad(reduced, losses)[0] if reduced.requires_grad else torch.zeros_like(losses)


def weighted_sum(per_token: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over [B, T]; values with weight 0, NaN included, are ignored."""
    return (torch.where(weights != 0, per_token, torch.zeros_like(per_token)) * weights).sum()
