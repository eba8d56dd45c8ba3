"""A pretrained model by its folder."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, Gemma2Config

from rlhf_lightning.backbone.causal import causal
from rlhf_lightning.errors import DataError
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.rollout.sampler.native import native


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
def test_the_weights_have_the_requested_type_whatever_the_folder_holds(language_model, tmp_path, dtype):
    language_model.model.to(torch.float16)
    language_model.save(tmp_path / "policy")
    again = causal([], path=str(tmp_path / "policy"), dtype=dtype)
    assert {parameter.dtype for parameter in again.model.parameters()} == {getattr(torch, dtype)}


def test_a_missing_folder_is_named_with_its_key(tmp_path):
    with pytest.raises(DataError, match=r"backbone\.path: no folder"):
        causal([], path=str(tmp_path / "nowhere"))


def test_a_model_that_caps_its_logits_is_read_capped(tiny_of, tmp_path):
    tokenizer = tiny_of("llama").tokenizer
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=16, final_logit_softcapping=1.0, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    language_model = causal([], path=str(tmp_path))
    assert language_model.logits(torch.full((1, 32), 1e3)).abs().max() <= 1.0


@pytest.fixture
def bert_decoder(trunk_folder, tmp_path):
    """The folder of a BERT that writes: is_decoder in its config, [SEP] its end-of-text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trunk_folder("bert"))
    config = BertConfig.from_pretrained(trunk_folder("bert"), is_decoder=True, eos_token_id=tokenizer.sep_token_id)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert")


@torch.no_grad()
def test_a_bert_decoder_writes_and_its_log_probs_are_those_of_transformers(bert_decoder):
    language_model = causal([], path=bert_decoder)
    model = language_model.model.eval()
    assert type(model).__name__ == "BertLMHeadModel"
    torch.manual_seed(1)
    rollout = native(language_model, language_model.encode_prompts(["It costs little", "a fan"], 8).repeat(2), max_new_tokens=8)
    output = Policy(language_model)(rollout)
    assert (output.log_probs - rollout.sampled_log_probs).abs().max() < 1e-4
    for i in range(4):
        prompt, response = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()], rollout.response_ids[i][rollout.response_mask[i].bool()]
        logits = model(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, response[:, None])[:, 0]
        assert torch.allclose(output.log_probs[i, : len(response)], expected, atol=1e-4)


def test_a_bert_decoder_is_tuned_by_command(command, world, bert_decoder):
    words = [word for word in world.ppo("rollout_scorer=lexicon") if not word.startswith(("backbone", "rollout_scorer"))]
    outcome = command(*words, "backbone=causal", f"backbone.path={bert_decoder}", *world.scorer)
    assert outcome.code == 0, outcome.error
    saved = AutoModelForCausalLM.from_pretrained(outcome.folder / "policy")
    assert type(saved).__name__ == "BertLMHeadModel"
