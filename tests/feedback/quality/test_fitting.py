"""The minimum of a convex function in closed form."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.feedback.quality.fitting import minimise


def test_a_quadratic_s_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix, target = matrix @ matrix.T + torch.eye(6), torch.randn(6, generator=generator, dtype=torch.float64)
    x = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    left = minimise([x], lambda: x @ matrix @ x / 2 - target @ x, 100)
    best = torch.linalg.solve(matrix, target)
    assert x.detach().tolist() == pytest.approx(best.tolist(), abs=1e-5)
    assert left == pytest.approx(float(-target @ best / 2), abs=1e-9)
