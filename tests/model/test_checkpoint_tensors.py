"""Saved folders: plain transformers reads the same model from them, and one that lacks a tensor never replaces another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, BertModel

from rlhf_lightning.config.atomic_write import write_folder
from rlhf_lightning.errors import DataError
from rlhf_lightning.model import checkpoint_tensors
from rlhf_lightning.model.adapters import add_adapters, merged_state
from rlhf_lightning.model.checkpoint_tensors import check_saved, checkpoint_state, save_model
from rlhf_lightning.model.loading import load_pretrained

ARCHITECTURES = ["mixtral", "qwen3_moe", "olmoe", "deepseek_v3", "gpt_oss", "gpt2", "llama", "llama_untied", "t5", "bart"]


def adapt(model):
    pytest.importorskip("peft")
    add_adapters(model.base_model, "policy_tuning", rank=4, alpha=8.0, dropout=0.0, targets=("all-linear",))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def outputs(model) -> torch.Tensor:
    ids = torch.arange(5, 17)[None]
    return model(input_ids=ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})).logits


@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapted"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_transformers_reads_the_same_model(small_model, architecture, adapted, tmp_path):
    small_model(architecture, seed=1).save_pretrained(tmp_path / "plain")
    model = adapt(small_model(architecture)) if adapted else small_model(architecture)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_model(model, tmp_path / "saved")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    kind = AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else AutoModelForCausalLM
    again, report = kind.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report.values())
    assert torch.allclose(outputs(again), outputs(model), atol=1e-5)
    with safe_open(tmp_path / "saved/model.safetensors", "pt") as ours, safe_open(tmp_path / "plain/model.safetensors", "pt") as theirs:
        assert set(ours.keys()) == set(theirs.keys())
        assert set(checkpoint_state(model)) == set(ours.keys())


@pytest.mark.parametrize("architecture", ["mixtral", "t5", "llama"])
def test_a_model_that_lost_tensors_is_not_saved_and_the_old_folder_stays(small_model, architecture, tmp_path, monkeypatch):
    folder = tmp_path / "policy"
    write_folder(folder, lambda target: save_model(small_model(architecture), target))
    before = (folder / "model.safetensors").read_bytes()
    lost = "experts.gate_up_proj" if architecture == "mixtral" else "layernorm" if architecture == "llama" else "wi.weight"

    def forgetful(model):
        return {name: value for name, value in merged_state(model).items() if not name.endswith(lost) and lost not in name}

    monkeypatch.setattr(checkpoint_tensors, "merged_state", forgetful)
    model = adapt(small_model(architecture, seed=1))
    with pytest.raises(DataError, match=r"was not saved, and the earlier folder stays.* it lacks \d+ tensors \("):
        write_folder(folder, lambda target: save_model(model, target))
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize("fault", ["lacks 1 tensor ", "holds, unknown to the model, 1 tensor ", "holds in another shape 1 tensor "])
def test_names_and_shapes_are_compared(small_model, fault, tmp_path):
    model = small_model("llama")
    save_model(model, tmp_path)
    state, name = load_file(tmp_path / "model.safetensors"), "model.norm.weight"
    if "lacks" in fault:
        del state[name]
    elif "unknown" in fault:
        state["model.other.weight"] = torch.zeros(2)
    else:
        state[name] = torch.zeros(3)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=fault + rf"\(model\.({'other' if 'unknown' in fault else 'norm'})\.weight\)"):
        check_saved(model, tmp_path)


def test_shards_count_together(small_model, tmp_path):
    model = small_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    check_saved(model, tmp_path)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(DataError, match="lacks"):
        check_saved(model, tmp_path)


def test_a_part_that_was_dropped_is_not_expected(tmp_path):
    model = BertModel(BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24))
    model.pooler = None
    save_model(model, tmp_path)
    model.resize_token_embeddings(70)
    save_model(model, tmp_path)
    assert AutoModel.from_pretrained(tmp_path).get_input_embeddings().num_embeddings == 70


def test_checkpoint_names_of_fused_experts_are_those_that_other_engines_read(small_model):
    """vLLM loads a mixture expert by expert."""
    state = checkpoint_state(adapt(small_model("mixtral")))
    assert state["model.layers.0.block_sparse_moe.experts.3.w2.weight"].shape == (16, 24)
    assert len([name for name in state if ".experts." in name]) == 2 * 4 * 3
    assert not any("lora" in name or "base_layer" in name for name in state)
    assert "lm_head.weight" not in checkpoint_state(small_model("llama"))


def test_the_settings_of_transformers_stay(small_model, tmp_path):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    save_model(small_model("gpt2"), Path(tmp_path))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_rwkv_is_saved_as_it_was_trained(tiny_model, tmp_path):
    """In eval mode RWKV divides weights of its later layers, once more with each loading of what was saved so."""
    tiny_model("rwkv", "causal").save_pretrained(tmp_path / "model")
    model = load_pretrained(AutoModelForCausalLM, str(tmp_path / "model"), "backbone.path").eval()
    expected = outputs(model)
    assert torch.allclose(expected, outputs(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), atol=1e-5)
    save_model(model, tmp_path / "saved")
    assert torch.allclose(outputs(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), expected, atol=1e-5)
