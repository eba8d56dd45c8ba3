"""Trials of a model on random tokens, which compare two ways of running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""The largest difference that counts as rounding, relative to the values' root mean square if that is above 1."""

READ_ERRORS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError)
"""Errors of a forward that doesn't support a trial's inputs."""


@contextmanager
def trial(module: nn.Module) -> Iterator[None]:
    """Run in eval mode without gradients and autocast inside the context; restore the modes afterwards."""
    device = next(module.parameters()).device.type
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for part, mode in training.items():
            part.training = mode


def random_ids(count: int, vocabulary: int, pad: int | None = None) -> Tensor:
    """Deterministic random token ids [count] without `pad`."""
    ids = torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(0))
    return ids if pad is None else torch.where(ids == pad, (ids + 1) % vocabulary, ids)


def agree(values: Tensor, expected: Tensor) -> bool:
    """Compare values with expected ones up to the rounding of their dtype."""
    if values.shape != expected.shape:
        return False
    scale = max(1.0, expected.float().square().mean().sqrt().item()) if expected.numel() else 1.0
    tolerance = TOLERANCE.get(expected.dtype, 1e-4) * scale
    return bool(((values.float() - expected.float()).abs() <= tolerance).all())
