"""Averages of eight bits: their size, their exact resume, and what they can't be used with."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimizer import adamw_8bit as module
from rlhf_lightning.testing.check import check_contract
from tests.optimizer.test_adamw import trained_of


def choices(strategy: str) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(trainer={"strategy": strategy}))


def test_its_averages_have_eight_bits_and_resume_exactly():
    pytest.importorskip("bitsandbytes")
    layer = nn.Linear(64, 64, bias=False)
    optimizer = module.adamw_8bit(trained_of(layer))
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    assert {value.dtype for name, value in optimizer.state[layer.weight].items() if name.startswith("state")} == {torch.uint8}
    check_contract("optimizer", "adamw_8bit")


def test_sharded_weights_and_a_missing_package_are_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"rlhf-lightning\[bitsandbytes\]"):
        module.check_supported(choices("ddp"))
    with pytest.raises(ConfigError, match=r"trainer\.strategy=fsdp2.*optimizer=adamw"):
        module.check_supported(choices("fsdp2"))
