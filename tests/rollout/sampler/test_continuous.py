"""Continuous batching of transformers; its log-probabilities are held to a plain forward in test_native."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.rollout.sampler.continuous import continuous

PROMPTS = ["It", "a quiet fan, and it costs little"]


def drawn(language_model, seed, **settings):
    torch.manual_seed(seed)
    return continuous(language_model, language_model.encode_prompts(PROMPTS, 8).repeat(3), max_new_tokens=8, page_size=8, **settings)


def test_a_seed_says_what_is_drawn_and_the_model_stays_as_it_was(tiny_of):
    language_model = tiny_of("llama")
    attention, own = language_model.model.config._attn_implementation, language_model.model.generation_config
    one, two, other = (drawn(language_model, seed) for seed in (0, 0, 1))
    assert torch.equal(one.response_ids, two.response_ids)
    assert one.responses != other.responses
    assert language_model.model.generation_config is own
    assert language_model.model.config._attn_implementation in (attention, "packed_sdpa")


def test_a_response_ends_with_its_first_eos(tiny_of):
    language_model = tiny_of("gpt2")
    eos = language_model.eos_ids[0]
    with torch.no_grad():
        language_model.model.get_input_embeddings().weight[eos] *= 0.0
    torch.manual_seed(0)
    rollout = continuous(language_model, language_model.encode_prompts(PROMPTS, 12).repeat(32), max_new_tokens=12, page_size=8)
    lengths = rollout.response_mask.sum(1)
    last = rollout.response_ids[torch.arange(len(rollout)), lengths - 1]
    assert 0 < rollout.has_eos.sum() < len(rollout)
    assert torch.equal(last == eos, rollout.has_eos)
    assert ((rollout.response_ids == eos) & rollout.response_mask.bool()).sum() == rollout.has_eos.sum()


@pytest.mark.parametrize("wish", [{"top_k": 1}, {"temperature": 0.01}])
def test_the_folder_s_wishes_change_nothing(tiny_of, wish):
    plain, asked = tiny_of("llama"), tiny_of("llama")
    for name, value in wish.items():
        setattr(asked.model.generation_config, name, value)
    assert torch.equal(drawn(plain, 0).response_ids, drawn(asked, 0).response_ids)
