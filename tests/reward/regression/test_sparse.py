"""Sparse matrices against dense ones."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from rlhf_lightning.reward.regression.sparse import CentredMatrix, build_matrix, column_moments, select_columns

WIDTH = 5
VALUES = st.sampled_from([0.0, 0.0, 0.0, 1.0, -2.0, 0.25])
ROWS = st.lists(st.lists(VALUES, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=7)


def both(rows: list[list[float]]) -> tuple[csr_array, torch.Tensor]:
    """Dense first two columns, the others by index and backwards."""
    parts = [
        [(2, {i: row[2 + i] for i in (2, 1, 0)}), (0, np.array(row[:2]) if number % 2 else row[:2])] for number, row in enumerate(rows)
    ]
    return build_matrix(parts, WIDTH), torch.tensor(rows, dtype=torch.float64)


@settings(deadline=None)
@given(ROWS)
def test_moments(rows):
    sparse, dense = both(rows)
    np.testing.assert_array_equal(sparse.toarray(), dense)
    mean, deviation = column_moments(sparse)
    torch.testing.assert_close(mean, dense.mean(0))
    torch.testing.assert_close(deviation, dense.std(0, correction=0))
    assert torch.equal(deviation == 0, dense.max(0).values == dense.min(0).values)


@settings(deadline=None)
@given(ROWS, st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH), st.integers(0, 2**31))
def test_columns_and_products(rows, mask, seed):
    sparse, dense = both(rows)
    columns = torch.tensor(mask)
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(int(columns.sum()), generator=generator, dtype=torch.float64) + 0.5
    centre = torch.randn(int(columns.sum()), generator=generator, dtype=torch.float64)
    selected = select_columns(sparse, columns, scale)
    full = dense[:, columns] / scale
    np.testing.assert_allclose(selected.toarray(), full)
    matrix = CentredMatrix(selected, centre)
    v = torch.randn(len(scale), generator=generator, dtype=torch.float64, requires_grad=True)
    u = torch.randn(len(rows), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(matrix.product(v), (full - centre) @ v)
    torch.testing.assert_close(matrix.rmatvec(u), (full - centre).T @ u)
    torch.testing.assert_close(matrix.dense(), full - centre)
    (gradient,) = torch.autograd.grad(matrix.product(v) @ u, v)
    torch.testing.assert_close(gradient, (full - centre).T @ u)
