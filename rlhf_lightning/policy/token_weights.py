"""How much each token of a minibatch counts in its loss, so that parts of the minibatch add up to the whole.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def token_weights(reduction: Callable[[Tensor, Tensor], Tensor], mask: Tensor) -> Tensor:
    """[B, T] the weight of each token in a reduction, which is linear in the tokens' losses: its gradient."""
    with torch.enable_grad():
        losses = torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        reduced = reduction(losses, mask)
        return torch.autograd.grad(reduced, losses)[0] if reduced.requires_grad else torch.zeros_like(losses)


def weighted_sum(per_token: Tensor, weights: Tensor) -> Tensor:
    """The sum over [B, T] where there is a weight; what stands elsewhere, NaN included, isn't read."""
    return (torch.where(weights != 0, per_token, torch.zeros_like(per_token)) * weights).sum()
