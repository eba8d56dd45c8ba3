"""adapter/ beside a merged model: peft loads it onto the start, and the logits are those of the merged weights."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.adapter_folder import FOLDER, adapter_files
from rlhf_lightning.model.adapters import add_adapters, has_adapters, merge_adapters, without_adapters
from rlhf_lightning.policy.tuning.lora import lora

pytest.importorskip("peft")
IDS = torch.tensor([[5, 9, 300, 12, 7]])
CASES = {
    "plain": {},
    "rank-stabilized": {"rank_stabilized": True},
    "DoRA": {"dora": True},
    "saved modules": {"modules_to_save": ("ln_f", "norm"), "targets": ("c_attn", "q_proj")},
}


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def learn(model):
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    for _ in range(2):  # the gradient of A is zero while B is
        optimizer.zero_grad()
        model(input_ids=IDS).logits.logsumexp(-1).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("case", CASES)
def test_peft_loads_it_and_it_equals_the_merged_model(tiny_of, family, case, tmp_path):
    from peft import PeftModel

    language_model = tiny_of(family)
    start, model = copy.deepcopy(language_model.model), language_model.model
    names = {"gpt2": ("ln_f", "c_attn"), "llama": ("norm", "q_proj")}[family]
    settings = {key: tuple(v for v in value if v in names) if isinstance(value, tuple) else value for key, value in CASES[case].items()}
    lora(model, **{"rank": 4, "alpha": 8.0, **settings})
    plain = logits(start)
    assert torch.allclose(logits(model), plain, atol=1e-5)
    learn(model)
    learned = logits(model)
    assert (learned - plain).abs().max() > 0.01
    with without_adapters(model):
        assert torch.equal(logits(model), plain)
    # The folder, as plain transformers and peft read it.
    language_model.save(tmp_path / "policy")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "policy")), learned, atol=1e-4)
    adapted = PeftModel.from_pretrained(start, tmp_path / "policy" / FOLDER).eval()
    assert torch.allclose(logits(adapted), learned, atol=1e-4)
    # Merged in place.
    merge_adapters(model)
    assert not has_adapters(model)
    assert torch.allclose(logits(model), learned, atol=1e-4)
    assert set(model.state_dict()) == set(copy.deepcopy(language_model.model).state_dict())
    assert not any("lora_" in name or "_module" in name for name in model.state_dict())


def test_a_rank_stabilized_scale_is_alpha_over_the_root_of_the_rank(tiny_of):
    model = tiny_of("llama").model
    lora(model, rank=4, alpha=8.0, targets=("q_proj",), rank_stabilized=True)
    assert model.model.layers[0].self_attn.q_proj.scaling["default"] == 4.0


def test_fused_experts_have_no_folder(small_model):
    model = small_model("mixtral")
    add_adapters(model.base_model, "policy_tuning", rank=4, alpha=8.0, dropout=0.0, targets=("all-linear",))
    assert adapter_files(model) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "no module 'nowhere'"), ("embed_tokens", "model.embed_tokens shares its weight with lm_head")],
)
def test_a_module_that_is_nowhere_or_shared_is_refused(tiny_of, name, message):
    with pytest.raises(ConfigError, match=rf"policy_tuning\.modules_to_save=\['{name}'\]: .*{message}"):
        lora(tiny_of("llama").model, modules_to_save=(name,))
