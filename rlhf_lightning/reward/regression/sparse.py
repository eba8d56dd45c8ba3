"""Sparse feature matrices [U, F]: construction, column moments and centred products."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from rlhf_lightning.reward.regression.family import FeatureRow


def build_matrix(rows: Iterable[Sequence[tuple[int, FeatureRow]]], width: int) -> csr_array:
    """Build a [U, width] matrix from rows of (first column, values in order or by index)."""
    starts, columns, values = array("q", [0]), array("q"), array("d")
    for row in rows:
        for first, part in row:
            if isinstance(part, np.ndarray):
                (nonzero,) = part.nonzero()
                columns.frombytes((nonzero + first).astype(np.int64).tobytes())
                values.frombytes(part[nonzero].astype(np.float64).tobytes())
                continue
            for index, value in part.items() if isinstance(part, Mapping) else enumerate(part):
                if value != 0:
                    columns.append(first + index)
                    values.append(value)
        starts.append(len(columns))
    matrix = csr_array((np.array(values), np.array(columns), np.array(starts)), shape=(len(starts) - 1, width))
    matrix.sort_indices()
    return matrix


def column_moments(matrix: csr_array) -> tuple[Tensor, Tensor]:
    """Mean and population deviation of each column, [F]; the deviation of a constant column is exactly 0."""
    size, width = matrix.shape
    mean = matrix.sum(axis=0) / size
    zeros = size - np.bincount(matrix.indices, minlength=width)
    squares = np.bincount(matrix.indices, (matrix.data - mean[matrix.indices]) ** 2, minlength=width) + zeros * mean**2
    is_constant = matrix.min(axis=0).toarray() == matrix.max(axis=0).toarray()
    return torch.from_numpy(mean), torch.from_numpy(np.where(is_constant, 0.0, np.sqrt(squares / size)))


def select_columns(matrix: csr_array, mask: Tensor, scale: Tensor) -> csr_array:
    """The columns that a mask [F] selects, each divided by its scale."""
    selected = matrix[:, mask.numpy().nonzero()[0]]
    selected.data /= scale.numpy()[selected.indices]
    return selected


class CentredMatrix:
    """X = matrix - centre, [U, F], as products with vectors; X itself isn't formed.

    Columns with values in at least half of the rows are stored as a dense block, the others in compressed rows.
    """

    def __init__(self, matrix: csr_array, centre: Tensor) -> None:
        self.size, self.width = matrix.shape
        self.centre, self._entries = centre.numpy(), matrix
        is_dense = 2 * np.bincount(matrix.indices, minlength=self.width) >= max(1, self.size)
        self._dense_columns = np.flatnonzero(is_dense)
        self._dense = matrix[:, self._dense_columns].toarray()
        self._sparse = matrix.copy()
        self._sparse.data[is_dense[matrix.indices]] = 0
        self._sparse.eliminate_zeros()

    def product(self, v: Tensor) -> Tensor:
        """X v, [U]; differentiable in v."""
        result: Tensor = _Product.apply(v, self)
        return result

    def matvec(self, v: Tensor) -> Tensor:
        """X v, [U], without a gradient."""
        x = v.detach().numpy()
        return torch.from_numpy(self._sparse @ x + self._dense @ x[self._dense_columns] - self.centre @ x)

    def rmatvec(self, u: Tensor) -> Tensor:
        """X' u, [F]."""
        y = u.numpy()
        product = self._sparse.T @ y
        product[self._dense_columns] = self._dense.T @ y
        return torch.from_numpy(product - self.centre * y.sum())

    def variances(self, mass: Tensor) -> Tensor:
        """Variance of each column [F], with weights `mass` [U] of the rows that sum to 1."""
        weights = mass.numpy()
        mean, squares = self._entries.T @ weights, self._entries.power(2).T @ weights
        return torch.from_numpy(squares - mean**2).clamp(min=0)

    def dense(self) -> Tensor:
        """X, [U, F]."""
        return torch.from_numpy(self._entries.toarray() - self.centre)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, matrix: CentredMatrix) -> Tensor:
        ctx.matrix = matrix
        return matrix.matvec(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.rmatvec(gradients[0]), None
