"""Lion by hand, and without its package."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimizer import lion as module
from tests.optimizer.test_adamw import trained_of


def test_a_step_is_a_sign():
    pytest.importorskip("lion_pytorch")
    layer = nn.Linear(3, 1, bias=False)
    before = layer.weight.detach().clone()
    optimizer = module.lion(trained_of(layer), weight_decay=0.0)
    layer.weight.grad = torch.tensor([[5.0, -0.1, 0.0]])
    optimizer.step()
    assert torch.allclose(before - layer.weight, torch.tensor([[0.5, -0.5, 0.0]]))


def test_without_the_package_it_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"rlhf-lightning\[lion\]"):
        module.check_installed(None)
