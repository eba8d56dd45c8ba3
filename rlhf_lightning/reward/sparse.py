"""A matrix of mostly zeros, [U, F], in compressed rows: what n-gram features of many texts are."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    def of(cls, rows: Iterable[Sequence[tuple[int, Sequence[float] | Mapping[int, float]]]], width: int) -> Sparse:
        """From rows of (first column, values from there on or by index). Values of 0 take no room."""
        starts, columns, values = array("q", [0]), array("q"), array("d")
        for row in rows:
            for first, part in row:
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
    """The map v -> X v and its transpose for X = values - centre, [U, F], which is never written out."""

    def __init__(self, matrix: Sparse, centre: Tensor) -> None:
        self.size, self.width, self.centre, self._entries = len(matrix), matrix.width, centre, matrix
        rows = matrix.rows_of_values()
        order = torch.argsort(matrix.columns, stable=True)
        counts = torch.bincount(matrix.columns, minlength=matrix.width)
        starts = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
        self._matrix = _csr(matrix.starts, matrix.columns, matrix.values, (self.size, self.width))
        self._transposed = _csr(starts, rows[order], matrix.values[order], (self.width, self.size))

    def times(self, v: Tensor) -> Tensor:
        """X v, [U]; differentiable in v."""
        result: Tensor = _Product.apply(v, self)
        return result

    def forward(self, v: Tensor) -> Tensor:
        return (self._matrix @ v[:, None])[:, 0] - self.centre @ v

    def variances(self, mass: Tensor) -> Tensor:
        """[F] variance of each column, each row counting by its mass [U], together 1."""
        own, nothing = self._entries, torch.zeros(self.width, dtype=torch.float64)
        weighted = mass[own.rows_of_values()] * own.values
        mean = nothing.index_add(0, own.columns, weighted)
        return (nothing.index_add(0, own.columns, weighted * own.values) - mean**2).clamp(min=0)

    def dense(self) -> Tensor:
        """X, [U, F]."""
        return self._matrix.to_dense() - self.centre

    def transposed_times(self, u: Tensor) -> Tensor:
        """X' u, [F]."""
        return (self._transposed @ u[:, None])[:, 0] - self.centre * u.sum()


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


def _csr(starts: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its compressed rows a beta; matrix times vector is all that is used
        return torch.sparse_csr_tensor(starts, columns, values, size, dtype=torch.float64, check_invariants=False)
