"""Sampling by transformers' generate; its log-probabilities are held to a plain forward in test_native."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.flow import Rollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers

WISHES = {
    "top_k": 1, "top_p": 0.01, "temperature": 0.01, "repetition_penalty": 50.0, "no_repeat_ngram_size": 1, "min_new_tokens": 8,
    "bad_words_ids": [[i] for i in range(100)], "max_length": 3, "do_sample": False, "num_beams": 4, "typical_p": 0.01, "min_p": 0.9,
}  # fmt: skip


def drawn(language_model: LanguageModel) -> Rollout:
    torch.manual_seed(0)
    prompts = language_model.encode_prompts(["It is a quiet fan, and it costs little.", "It"], 8).repeat(32)
    return transformers(language_model, prompts, max_new_tokens=8)


@pytest.mark.parametrize("wish", WISHES)
def test_the_folder_s_wishes_change_nothing(tiny_of, wish):
    """The log-probabilities are those of the distribution drawn from, whatever the folder's generation config asks for."""
    plain, asked = tiny_of("llama"), tiny_of("llama")
    setattr(asked.model.generation_config, wish, WISHES[wish])
    assert torch.equal(drawn(plain).response_ids, drawn(asked).response_ids)
    assert getattr(asked.model.generation_config, wish) == WISHES[wish], "the folder's own is put back"


@pytest.mark.parametrize("sampler", [native, transformers])
@torch.no_grad()
def test_a_token_is_drawn_from_the_softmax(tiny_of, sampler):
    language_model = tiny_of("llama")
    expected = language_model.model(language_model.encode_prompts(["It"], 1).prompt_ids).logits[0, -1].softmax(-1)
    torch.manual_seed(0)
    tokens = sampler(language_model, language_model.encode_prompts(["It"], 1).repeat(4096), max_new_tokens=1).response_ids[:, 0]
    assert (torch.bincount(tokens, minlength=len(expected)) / 4096 - expected).abs().sum() < 0.25


def test_an_ended_response_has_nothing_after_its_end(tiny_of):
    language_model = tiny_of("gpt2")
    eos = language_model.eos_ids[0]
    with torch.no_grad():  # an end-of-text is likely
        language_model.model.get_input_embeddings().weight[eos] *= 0.0
    torch.manual_seed(0)
    prompts = language_model.encode_prompts(["It", "a quiet fan"], 12).repeat(64)
    rollout = transformers(language_model, prompts, max_new_tokens=12)
    lengths = rollout.response_mask.sum(1)
    ended = rollout.has_eos
    assert 0 < ended.sum() < len(rollout)
    last = rollout.response_ids[torch.arange(len(rollout)), lengths - 1]
    assert torch.equal(last == eos, ended)
    assert ((rollout.response_ids == eos) & rollout.response_mask.bool()).sum() == ended.sum()
    assert (rollout.response_ids[~rollout.response_mask.bool()] == language_model.pad_id).all()
    assert (lengths[~ended] == 12).all()
