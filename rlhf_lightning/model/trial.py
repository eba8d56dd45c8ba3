"""Trials of a model on random tokens: whether two ways of running it give the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""The largest difference that counts as rounding, times the values' root mean square where that is above 1."""

READ_ERRORS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError)
"""What a model raises whose forward can't read what a trial gives it."""


@contextmanager
def trial(module: nn.Module) -> Iterator[None]:
    """Inside: eval mode, no gradients, no autocast. Modes are restored afterwards."""
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
    """[count] token ids, none of them `pad`; always the same."""
    ids = torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(0))
    return ids if pad is None else torch.where(ids == pad, (ids + 1) % vocabulary, ids)


def agree(values: Tensor, expected: Tensor) -> bool:
    """Whether values equal those expected but for the rounding of their dtype."""
    if values.shape != expected.shape:
        return False
    scale = max(1.0, expected.float().square().mean().sqrt().item()) if expected.numel() else 1.0
    tolerance = TOLERANCE.get(expected.dtype, 1e-4) * scale
    return bool(((values.float() - expected.float()).abs() <= tolerance).all())
