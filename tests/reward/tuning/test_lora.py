"""reward_tuning=lora: adapters alone are trained, in every family, and packing stays."""

from __future__ import annotations

import sys

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.packing import supports_packing
from rlhf_lightning.reward.tuning.lora import lora

pytest.importorskip("peft")
TEXTS = [("It", "is a fan"), ("a", "lamp that boils"), ("", "fan")]


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5"])
def test_adapters_and_head_alone_get_gradients_by_their_formula(model_of, family):
    model = model_of(family)
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    lora(model.net.trunk, rank=4, alpha=8.0, dropout=0.0)
    assert supports_packing(model.net.trunk) == (family != "t5")
    model(model.tokenise(TEXTS)).square().sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert with_gradient == trained
    assert all("lora_" in name or name.startswith("net.head") for name in trained)
    assert {name.split(".lora_")[0] for name in trained if "lora_" in name}
    kept = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items() if "lora_" not in name}
    assert kept.keys() == plain.keys()
    assert all(torch.equal(kept[name], plain[name]) for name in plain)


def test_the_targets_are_those_named(model_of):
    trunk = model_of("llama").net.trunk
    lora(trunk, targets=("q_proj", "v_proj"))
    adapted = {name.split(".lora_")[0].split(".")[-1] for name, _ in trunk.named_parameters() if "lora_" in name}
    assert adapted == {"q_proj", "v_proj"}


@torch.no_grad()
def test_rank_and_alpha_are_what_they_say(model_of):
    trunk = model_of("llama").net.trunk
    lora(trunk, rank=3, alpha=12.0, dropout=0.0, targets=("q_proj",))
    layer = trunk.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape[0] == b.shape[1] == 3
    b.normal_()
    x = torch.randn(5, 32)
    assert torch.allclose(layer(x), layer.base_layer(x) + 4.0 * x @ a.T @ b.T, atol=1e-4)


def test_dropout_acts_on_adapters_while_training_only(model_of):
    model = model_of("llama")
    lora(model.net.trunk, dropout=0.5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    tokens = model.tokenise(TEXTS)
    assert model(tokens).tolist() != model(tokens).tolist()
    model.eval()
    assert model(tokens).tolist() == model(tokens).tolist()


def test_a_target_that_is_nowhere_is_refused(model_of):
    with pytest.raises(ConfigError, match=r"reward_tuning\.targets=\['nowhere'\]"):
        lora(model_of("llama").net.trunk, targets=("nowhere",))


def test_without_peft_the_extra_is_named(model_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlhf-lightning\[lora\]'"):
        lora(model_of("llama").net.trunk)
