"""LoRA's adapters: off they are not there, merged they are in the weights, and saved a folder is a plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_lightning.backbone.adapters import add_adapters, has_adapters, merge_adapters, merged_parameters, merged_state, without_adapters
from rlhf_lightning.backbone.packing import supports_packing
from rlhf_lightning.errors import ConfigError

pytest.importorskip("peft")
IDS = torch.tensor([[5, 9, 300, 12, 7]])
SETTINGS = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ("all-linear",)}


def adapted(language_model, **settings):
    """The model with adapters that change what it says."""
    add_adapters(language_model.model.base_model, "policy_tuning", **{**SETTINGS, **settings})
    for name, parameter in language_model.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return language_model


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=IDS).logits


def test_switched_off_they_are_not_there(language_model):
    plain = logits(language_model.model)
    model = adapted(language_model).model
    changed = logits(model)
    assert (changed - plain).abs().max() > 0.1
    with without_adapters(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), changed)
    assert all(parameter.requires_grad == ("lora_" in name) for name, parameter in model.base_model.named_parameters())


def test_an_error_inside_switches_them_on_again(language_model):
    model = adapted(language_model).model
    changed = logits(model)
    with pytest.raises(KeyError), without_adapters(model):
        raise KeyError
    assert torch.equal(logits(model), changed)


def test_merged_they_say_the_same_and_leave_plain_layers(language_model):
    plain = {name: type(module) for name, module in language_model.model.named_modules()}
    model = adapted(language_model).model
    changed, state = logits(model), merged_state(model)
    assert has_adapters(model)
    merge_adapters(model)
    assert not has_adapters(model)
    assert {name: type(module) for name, module in model.named_modules()} == plain
    assert torch.allclose(logits(model), changed, atol=1e-4)
    own = model.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.allclose(own[name], state[name], atol=1e-6) for name in own)


def test_a_saved_folder_is_plain_and_the_model_keeps_its_adapters(language_model, tmp_path):
    before = AutoModelForCausalLM.from_config(language_model.model.config).state_dict().keys()
    model = adapted(language_model).model
    state = copy.deepcopy(model.state_dict())
    language_model.save(tmp_path / "policy")
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    assert again.state_dict().keys() == before
    assert torch.allclose(logits(again), logits(model), atol=1e-4)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


def test_after_a_merge_others_begin_as_no_change(language_model):
    model = adapted(language_model).model
    merge_adapters(model)
    merged = logits(model)
    add_adapters(model.base_model, "policy_tuning", **{**SETTINGS, "rank": 2})
    assert torch.equal(logits(model), merged)
    assert {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name} == {2}


def test_merged_parameters_are_those_of_the_plain_model(language_model):
    plain = dict(language_model.model.named_parameters())
    assert all(value is not plain[name] and torch.equal(value, plain[name]) for name, value in merged_parameters(language_model.model))
    model = adapted(language_model).model
    merged = merged_parameters(model)
    merge_adapters(model)
    own = dict(model.named_parameters())
    assert [name for name, _ in merged] == list(plain) == list(own)
    assert all(torch.allclose(value, own[name], atol=1e-6) for name, value in merged)
    assert not any(value.requires_grad for _, value in merged)


def test_packing_stays(language_model):
    assert supports_packing(adapted(language_model).model.base_model)


def test_adapters_of_bfloat16_weights_are_float32_and_merge_in_it(tiny_of):
    language_model = tiny_of("llama")
    language_model.model.bfloat16()
    model = adapted(language_model).model
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16
    layer = model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = (layer.base_layer.weight.float() + 2.0 * b @ a).bfloat16()
    assert torch.equal(merged_state(model)["model.layers.0.self_attn.q_proj.weight"], expected)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_embedding_is_refused(tiny_of, family):
    name = {"gpt2": "wte", "llama": "embed_tokens"}[family]
    with pytest.raises(ConfigError, match=rf"policy_tuning\.targets=\['{name}'\]: {name} is an embedding"):
        adapted(tiny_of(family), targets=(name,))
