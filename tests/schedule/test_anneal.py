"""The default schedule by its closed form, the values of the others by their library, and warm-ups."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR, PolynomialLR

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.schedule.anneal import anneal


def rates(schedule: Callable[..., Any], steps: int, **settings) -> list[float]:
    """The learning rate of each step, as a fraction of the setting, and the one after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = schedule(optimizer, **settings) if "num_warmup_steps" in settings else schedule(optimizer, steps, 0.0, **settings)
    values = []
    for _ in range(steps + 1):
        values.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        scheduler.step()
    return values


def test_it_rises_and_falls_linearly_to_zero():
    values = rates(anneal, 20, warmup=0.25)
    assert values == pytest.approx([min(1.0, (i + 1) / 5) * (1 - i / 20) for i in range(21)])
    assert values == rates(anneal, 20, warmup=5)
    assert values.index(max(values)) == 4
    assert values[20] == 0
    falls = [a - b for a, b in itertools.pairwise(values[4:])]
    assert falls == pytest.approx([1 / 20] * 16)
    assert rates(anneal, 4) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_it_is_torch_s_linear_warm_up_chained_with_its_linear_fall():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    parts = [LinearLR(optimizer, 1 / 5, total_iters=4), PolynomialLR(optimizer, 20, power=1)]
    chained = []
    for _ in range(20):
        chained.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        for part in parts:
            part.step()
    assert chained == pytest.approx(rates(anneal, 20, warmup=5)[:20])


def test_few_steps_all_learn():
    assert rates(anneal, 1, warmup=0.1)[0] == 1.0
    assert all(rate > 0 for rate in rates(anneal, 3, warmup=0.9)[:3])


def test_a_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(ConfigError, match=r"schedule\.warmup=20 .* 20 steps"):
        rates(anneal, 20, warmup=20)


def test_the_default_warm_up_is_the_training_s():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    partial(anneal, optimizer, 10, 0.2)()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 / 2)
