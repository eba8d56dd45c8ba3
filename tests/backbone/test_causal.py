"""A pretrained model by its folder."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.errors import ConfigError, DataError


def unread():
    raise AssertionError("a pretrained model brings its tokenizer")
    yield ""


@torch.no_grad()
def test_a_saved_model_comes_back_bitwise(language_model, tmp_path):
    language_model.save(tmp_path / "policy")
    again = causal(unread(), path=str(tmp_path / "policy"))
    prompts = language_model.encode_prompts(["It costs", "The kettle boils"], 5)
    assert torch.equal(again.encode_prompts(["It costs", "The kettle boils"], 5).prompt_ids, prompts.prompt_ids)
    assert torch.equal(again.model(input_ids=prompts.prompt_ids).logits, language_model.model(input_ids=prompts.prompt_ids).logits)
    assert (again.eos_ids, again.pad_id, again.max_length) == (language_model.eos_ids, language_model.pad_id, 64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_weights_have_the_asked_type_whatever_the_folder_holds(language_model, tmp_path, dtype):
    language_model.model.to(torch.float16)
    language_model.save(tmp_path / "policy")
    again = causal([], path=str(tmp_path / "policy"), dtype=dtype)
    assert {parameter.dtype for parameter in again.model.parameters()} == {getattr(torch, dtype)}


def test_a_missing_folder_is_named_with_its_key(tmp_path):
    with pytest.raises(DataError, match=r"backbone\.path: no folder"):
        causal([], path=str(tmp_path / "nowhere"))


def test_a_model_that_caps_its_logits_is_refused(tiny_of, tmp_path):
    tokenizer = tiny_of("llama").tokenizer
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=16, final_logit_softcapping=1.0, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="Gemma2ForCausalLM changes its logits"):
        causal([], path=str(tmp_path))
