"""Ridge regression with an intercept: the closed form for ratings alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import diags_array
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from rlhf_lightning.reward.regression.sparse import CentredMatrix

DENSE = 1000
"""Number of features up to which the system is solved by Cholesky; beyond, by conjugate gradients."""


def ridge(matrix: CentredMatrix, mass: Tensor, target: Tensor, penalty: Tensor, start: Tensor, tolerance: float = 1e-10) -> Tensor:
    """The w [F] that minimises sum of mass (y - b - phi·w)² / 2 + sum of penalty w² / 2, b being free.

    Args:
        mass: [U] weights of the texts, with sum 1. target: [U] mass * y. penalty: [F].
        start, tolerance: first w and relative residual of conjugate gradients.
    """
    right = matrix.rmatvec(target - mass * target.sum())

    def normal_product(w: Tensor) -> Tensor:
        scores = matrix.matvec(w)
        return matrix.rmatvec(mass * (scores - mass @ scores)) + penalty * w

    if matrix.width > DENSE:
        # The clamp is for a constant column without a penalty.
        return _conjugate_gradients(normal_product, right, (matrix.variances(mass) + penalty).clamp(min=1e-12), start, tolerance)
    rows = matrix.dense()
    rows = rows - mass @ rows
    gram = rows.T @ (mass[:, None] * rows) + torch.diag(penalty)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):  # collinear features without a penalty have many solutions: take the smallest
        smallest: Tensor = torch.linalg.lstsq(gram, right[:, None], driver="gelsd").solution[:, 0]
        return smallest
    return torch.cholesky_solve(right[:, None], factor)[:, 0]


def _conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, diagonal: Tensor, start: Tensor, tolerance: float) -> Tensor:
    """Solve product(w) = right, a symmetric positive system, to a relative residual of `tolerance`.

    The system's diagonal is the preconditioner: rare words would take many steps otherwise.
    """
    size = len(right)
    operator = LinearOperator((size, size), matvec=lambda w: product(torch.from_numpy(w)).numpy(), dtype=np.float64)
    solution, _ = cg(operator, right.numpy(), start.numpy(), rtol=tolerance, atol=0.0, M=diags_array(1 / diagonal.numpy()))
    return torch.from_numpy(solution)
