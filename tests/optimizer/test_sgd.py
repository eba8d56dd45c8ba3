"""SGD by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimizer.sgd import sgd
from tests.optimizer.test_adamw import trained_of


def test_two_steps_with_momentum_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    start = layer.weight.item()
    optimizer = sgd(trained_of(layer), momentum=0.9)
    for _ in range(2):
        layer.weight.grad = torch.tensor([[2.0]])
        optimizer.step()
    assert layer.weight.item() == pytest.approx(start - 0.5 * 2.0 - 0.5 * (0.9 * 2.0 + 2.0), abs=1e-6)


def test_nesterov_wants_momentum():
    with pytest.raises(ConfigError, match=r"optimizer\.momentum"):
        sgd(trained_of(nn.Linear(1, 1)), nesterov=True)
