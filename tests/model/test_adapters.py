"""LoRA's adapters: off they change nothing, merged they are in the weights, and saved a folder is a plain one; for every architecture."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.adapters import add_adapters, has_adapters, merge_adapters, merged_names, merged_state, without_adapters
from rlhf_lightning.model.packing import supports_packing

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


ARCHITECTURES = ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3", "qwen2_moe", "gpt_oss", "gpt2", "llama", "t5", "bart"]
MIXTURES = ARCHITECTURES[:4]
"""Whose fused experts peft adapts; of the two after them it adapts the linear layers."""


def adapt(model: torch.nn.Module, **settings) -> torch.nn.Module:
    """Adapters, as each tuning puts them, that change the outputs."""
    add_adapters(model.base_model, "policy_tuning", **{**SETTINGS, **settings})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def outputs(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(5, 17)[None]
    return model(input_ids=ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merged_weights_compute_what_the_adapters_did(small_model, architecture):
    model = small_model(architecture)
    plain, names = outputs(model), list(model.state_dict())
    classes = {name: type(module) for name, module in model.named_modules()}
    adapt(model)
    changed, state = outputs(model), merged_state(model)
    assert (changed - plain).abs().max() > 0.1
    assert list(state) == names
    assert merged_names(model) == set(names)
    with without_adapters(model):
        assert torch.allclose(outputs(model), plain, atol=1e-5)
    assert torch.equal(outputs(model), changed)
    merge_adapters(model)
    assert not has_adapters(model)
    assert {name: type(module) for name, module in model.named_modules()} == classes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.allclose(outputs(model), changed, atol=1e-5)
    again = small_model(architecture)
    again.load_state_dict(state)
    assert torch.allclose(outputs(again), changed, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_means_every_linear_layer_but_the_output(small_model, architecture):
    model = small_model(architecture)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"}
    before = dict(model.named_parameters())
    adapt(model)
    state = merged_state(model)
    changed = {name for name, value in before.items() if not torch.equal(state[name], value)}
    expected = {f"{name}.weight" for name in linear if model.get_submodule(name) is not model.get_output_embeddings()}
    assert expected <= changed
    if architecture in MIXTURES:
        experts = {name for name in before if name.endswith(("experts.gate_up_proj", "experts.down_proj"))}
        assert experts
        assert experts <= changed


def test_adapters_of_fused_experts_learn(small_model):
    model = small_model("mixtral")
    add_adapters(model.base_model, "policy_tuning", **SETTINGS)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    before = merged_state(model)
    for _ in range(2):  # the gradient of A is zero while B is
        model(input_ids=torch.arange(5, 17)[None]).logits.logsumexp(-1).sum().backward()
        optimizer.step()
    changed = {name for name, value in merged_state(model).items() if not torch.equal(before[name], value)}
    assert {name.rpartition("experts.")[2] for name in changed if ".experts." in name} == {"gate_up_proj", "down_proj"}
    assert not any("embed" in name or "norm" in name for name in changed)


@pytest.mark.parametrize("architecture", ["mixtral", "llama"])
def test_dropout_is_left_out_beside_fused_experts_only(small_model, architecture):
    model = small_model(architecture)
    add_adapters(model.base_model, "reward_tuning", **{**SETTINGS, "dropout": 0.5})
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p == 0.5]
    assert len(dropouts) == {"mixtral": 8, "llama": 14}[architecture]


@pytest.mark.parametrize(("architecture", "target"), [("t5", "lm_head"), ("bart", "lm_head"), ("llama", "lm_head")])
def test_a_layer_that_shares_its_weight_is_rejected(small_model, architecture, target):
    model = small_model(architecture)
    with pytest.raises(ConfigError, match=r"policy_tuning\.targets=\['lm_head'\]: lm_head shares its weight with "):
        add_adapters(model, "policy_tuning", **{**SETTINGS, "targets": (target,)})


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
