"""A matrix of mostly zeros, [U, F], in compressed rows: what n-gram features of many texts are."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sparse:
    """Compressed rows: row i holds values[starts[i]:starts[i + 1]] in these columns.

    Attributes:
        starts: [U + 1]. columns: [N]. values: [N], float64.
        width: F.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor
    width: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, rows: Iterable[Sequence[tuple[int, Sequence[float] | Mapping[int, float] | np.ndarray]]], width: int) -> Sparse:
        """From rows of (first column, values from there on or by index). Values of 0 take no room."""
        starts, columns, values = array("q", [0]), array("q"), array("d")
        for row in rows:
            for first, part in row:
                if isinstance(part, np.ndarray):
                    (nonzero,) = part.nonzero()
                    columns.frombytes((nonzero + first).astype(np.int64).tobytes())
                    values.frombytes(part[nonzero].astype(np.float64).tobytes())
                    continue
                for at, value in part.items() if isinstance(part, Mapping) else enumerate(part):
                    if value != 0:
                        columns.append(first + at)
                        values.append(value)
            starts.append(len(columns))
        matrix = cls(_tensor(starts, torch.long), _tensor(columns, torch.long), _tensor(values, torch.float64), width)
        order = torch.argsort(matrix.rows_of_values() * width + matrix.columns)
        return cls(matrix.starts, matrix.columns[order], matrix.values[order], width)

    def rows_of_values(self) -> Tensor:
        """[N] the row of each value."""
        return torch.repeat_interleave(torch.arange(len(self)), self.starts.diff())

    def moments(self) -> tuple[Tensor, Tensor]:
        """[F] mean and population deviation of each column; a deviation of exactly 0 where all values are equal."""
        count = max(1, len(self))
        total = torch.zeros(self.width, dtype=torch.float64)
        mean = total.index_add(0, self.columns, self.values) / count
        present = torch.zeros(self.width, dtype=torch.float64).index_add(0, self.columns, torch.ones_like(self.values))
        squares = total.index_add(0, self.columns, (self.values - mean[self.columns]) ** 2) + (count - present) * mean**2
        low = total.scatter_reduce(0, self.columns, self.values, "amin", include_self=False)
        high = total.scatter_reduce(0, self.columns, self.values, "amax", include_self=False)
        # A column that some rows lack has a 0 among its values.
        low, high = (
            torch.where(present < count, edge(bound, total), bound) for bound, edge in ((low, torch.minimum), (high, torch.maximum))
        )
        return mean, torch.where(low == high, 0.0, (squares / count).sqrt())

    def select(self, rows: Tensor) -> Sparse:
        """These rows, in this order."""
        lengths = self.starts.diff()[rows]
        starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        at = torch.arange(int(starts[-1])) + torch.repeat_interleave(self.starts[rows] - starts[:-1], lengths)
        return Sparse(starts, self.columns[at], self.values[at], self.width)

    def take(self, columns: Tensor, scale: Tensor) -> Sparse:
        """The columns that a mask [F] keeps, each divided by its scale [kept]."""
        place = columns.cumsum(0) - 1
        inside = columns[self.columns]
        kept = place[self.columns[inside]]
        starts = torch.cat([torch.zeros(1, dtype=torch.long), inside.long().cumsum(0)])[self.starts]
        return Sparse(starts, kept, self.values[inside] / scale[kept], int(columns.sum()))

    def dense(self) -> Tensor:
        """[U, F]."""
        full = torch.zeros(len(self), self.width, dtype=torch.float64)
        full[self.rows_of_values(), self.columns] = self.values
        return full


class Linear:
    """The map v -> X v and its transpose for X = values - centre, [U, F], never written out.

    Columns with values in at least half of the rows are a dense block of it, the others compressed rows.
    """

    def __init__(self, matrix: Sparse, centre: Tensor) -> None:
        self.size, self.width, self.centre, self._entries = len(matrix), matrix.width, centre, matrix
        rows, counts = matrix.rows_of_values(), torch.bincount(matrix.columns, minlength=matrix.width)
        is_dense = 2 * counts >= max(1, self.size)
        # The dense block [U, D].
        self._dense_columns = is_dense.nonzero()[:, 0]
        inside = is_dense[matrix.columns]
        self._dense = torch.zeros(self.size, len(self._dense_columns), dtype=torch.float64)
        self._dense[rows[inside], (is_dense.cumsum(0) - 1)[matrix.columns[inside]]] = matrix.values[inside]
        # The other columns, by rows and by columns.
        rows, columns, values = rows[~inside], matrix.columns[~inside], matrix.values[~inside]
        order = torch.argsort(columns, stable=True)
        self._matrix = _csr(_starts(rows, self.size), columns, values, (self.size, self.width))
        self._transposed = _csr(_starts(columns[order], self.width), rows[order], values[order], (self.width, self.size))

    def times(self, v: Tensor) -> Tensor:
        """X v, [U]; differentiable in v."""
        result: Tensor = _Product.apply(v, self)
        return result

    def forward(self, v: Tensor) -> Tensor:
        return (self._matrix @ v[:, None])[:, 0] + self._dense @ v[self._dense_columns] - self.centre @ v

    def variances(self, mass: Tensor) -> Tensor:
        """[F] variance of each column, each row counting by its mass [U], together 1."""
        own, nothing = self._entries, torch.zeros(self.width, dtype=torch.float64)
        weighted = mass[own.rows_of_values()] * own.values
        mean = nothing.index_add(0, own.columns, weighted)
        return (nothing.index_add(0, own.columns, weighted * own.values) - mean**2).clamp(min=0)

    def dense(self) -> Tensor:
        """X, [U, F]."""
        return self._entries.dense() - self.centre

    def transposed_times(self, u: Tensor) -> Tensor:
        """X' u, [F]."""
        product = (self._transposed @ u[:, None])[:, 0]
        product[self._dense_columns] = self._dense.T @ u
        return product - self.centre * u.sum()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, linear: Linear) -> Tensor:
        ctx.linear = linear
        return linear.forward(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.transposed_times(gradients[0]), None


def _tensor(values: array[Any], kind: torch.dtype) -> Tensor:
    return torch.frombuffer(values, dtype=kind).clone() if values else torch.zeros(0, dtype=kind)


def _starts(sorted_rows: Tensor, size: int) -> Tensor:
    """[size + 1] where each row's values begin."""
    counts = torch.bincount(sorted_rows, minlength=size)
    return torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])


def _csr(starts: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its compressed rows a beta; matrix times vector is all that is used
        return torch.sparse_csr_tensor(starts, columns, values, size, dtype=torch.float64, check_invariants=False)
