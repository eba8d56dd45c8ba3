"""Minimisation of smooth losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def minimise(parameters: Sequence[Tensor], loss: Callable[[], Tensor], iterations: int, tolerance: float = 1e-6) -> float:
    """Minimise the loss in place by L-BFGS with a line search; return the final loss.

    Args:
        iterations: maximum.
        tolerance: on the largest derivative.
    """
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=iterations, line_search_fn="strong_wolfe", history_size=20, tolerance_grad=tolerance, tolerance_change=1e-10
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    with torch.no_grad():
        return float(loss())
