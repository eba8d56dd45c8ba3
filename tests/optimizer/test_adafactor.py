"""Adafactor: its state is a row and a column, and a step is relative to the weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimizer.adafactor import adafactor, check_supported
from tests.optimizer.test_adamw import trained_of


def test_its_state_is_small_and_its_step_relative_to_the_weights():
    layer = nn.Linear(30, 20, bias=False)
    trained = trained_of(layer, weight_decay=0.0)
    optimizer = adafactor(trained)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    assert sum(value.numel() for value in optimizer.state[layer.weight].values()) == 30 + 20 + 1
    # Shazeer and Stern 2018: the size of the weights, times the learning rate, of which 1 / sqrt(step) is the most.
    assert (before - layer.weight).abs().mean().item() == pytest.approx(0.5 * before.square().mean().sqrt().item(), rel=1e-3)


def test_sharded_weights_are_refused():
    with pytest.raises(ConfigError, match=r"trainer\.strategy=fsdp2.*optimizer=adamw"):
        check_supported(SimpleNamespace(config=SimpleNamespace(trainer={"strategy": "fsdp2"})))
