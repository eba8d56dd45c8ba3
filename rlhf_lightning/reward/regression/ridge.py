"""Ridge regression with an intercept: the closed form of ratings alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_lightning.reward.regression.sparse import Linear

DENSE = 1000
"""Up to so many features the system is solved by Cholesky, beyond by conjugate gradients."""


def ridge(linear: Linear, mass: Tensor, target: Tensor, penalty: Tensor, start: Tensor, tolerance: float = 1e-10) -> Tensor:
    """argmin over w [F] of the sum of mass (y - b - phi·w)² / 2 + sum of penalty w² / 2, with the b that is best for each w.

    Args:
        mass: [U] weights of the texts, together 1. target: [U] mass * y. penalty: [F].
        start, tolerance: where conjugate gradients begin, and the relative residual at which they end.
    """
    right = linear.transposed_times(target - mass * target.sum())

    def left(w: Tensor) -> Tensor:
        scores = linear.forward(w)
        return linear.transposed_times(mass * (scores - mass @ scores)) + penalty * w

    if linear.width > DENSE:
        # A column that doesn't vary, without a penalty, has nothing to find.
        return _conjugate_gradients(left, right, (linear.variances(mass) + penalty).clamp(min=1e-12), start, tolerance)
    rows = linear.dense()
    rows = rows - mass @ rows
    gram = rows.T @ (mass[:, None] * rows) + torch.diag(penalty)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):  # without a penalty, features that say the same have no one solution: the smallest is taken
        smallest: Tensor = torch.linalg.lstsq(gram, right[:, None], driver="gelsd").solution[:, 0]
        return smallest
    return torch.cholesky_solve(right[:, None], factor)[:, 0]


def _conjugate_gradients(left: Callable[[Tensor], Tensor], right: Tensor, diagonal: Tensor, start: Tensor, tolerance: float) -> Tensor:
    """left(w) = right for a symmetric positive map with this diagonal, to a relative residual of `tolerance`.

    Conjugate gradients (Hestenes and Stiefel 1952) with the diagonal for preconditioner: rare words would else take many steps.
    """
    w = start.clone()
    residual = right - left(w)
    direction = residual / diagonal
    size = residual @ direction
    for _ in range(10 * len(right)):
        if residual @ residual <= tolerance**2 * (right @ right):
            break
        image = left(direction)
        step = size / (direction @ image)
        w, residual = w + step * direction, residual - step * image
        eased = residual / diagonal
        before, size = size, residual @ eased
        direction = eased + size / before * direction
    return w
