"""Models with other caches than keys and values, with states, or with none: each row as the plain model writes it alone."""

from __future__ import annotations

import warnings

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.rollout.sampler._decoder import is_recurrent, reads_padding
from rlhf_lightning.rollout.sampler.continuous import continuous
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers

STATEFUL = ["mamba", "mamba2", "lfm2", "qwen3_next", "jamba", "falcon_h1", "bamba", "recurrent_gemma", "rwkv", "xlstm", "minimax"]
OTHERS = ["openai-gpt", "bloom", "mistral", "gpt_oss", "roberta", "opt", "bart", "llama4_text"]
PROMPTS = ["It", "Review of a lamp:\n", "The kettle", "A quiet fan", "A quick fan"]


def language_model_of(family: str, tiny_of, tiny_model) -> LanguageModel:
    """A tiny model of the family, for which a third of all tokens end a response: rows leave at different steps."""
    language_model = LanguageModel(tiny_model(family, "causal"), tiny_of("llama").tokenizer)
    language_model.model.generation_config.eos_token_id = list(range(1, 300, 3))
    return language_model


def worst_difference(language_model: LanguageModel, rollout: Rollout) -> float:
    """Between the sampler's log-probabilities and those of a plain forward pass over each row alone."""
    worst = 0.0
    for i in range(len(rollout)):
        prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
        response = rollout.response_ids[i][rollout.response_mask[i].bool()]
        logits = language_model.model(input_ids=torch.cat([prompt, response])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, response[:, None])[:, 0]
        worst = max(worst, (rollout.sampled_log_probs[i, : len(response)] - expected).abs().max().item())
    return worst


@pytest.mark.parametrize("family", [*STATEFUL, *OTHERS])
@torch.no_grad()
def test_each_row_is_what_the_plain_model_writes_alone(family, tiny_of, tiny_model):
    language_model = language_model_of(family, tiny_of, tiny_model)
    prompts = language_model.encode_prompts(PROMPTS, 8)
    greedy = native(language_model, prompts, max_new_tokens=8, temperature=0.0)
    sampled = native(language_model, prompts.repeat(2), max_new_tokens=8)
    assert len(set(sampled.response_mask.sum(1).tolist())) > 1, "rows must leave at different steps"
    assert worst_difference(language_model, greedy) < 1e-4
    assert worst_difference(language_model, sampled) < 1e-4
    for i in range(len(prompts)):
        ids = prompts.prompt_ids[i][prompts.prompt_mask[i].bool()]
        response = greedy.response_ids[i][greedy.response_mask[i].bool()]
        for step, token in enumerate(response):
            read = torch.cat([ids, response[:step]])[None]
            assert language_model.model(input_ids=read, use_cache=False).logits[0, -1].argmax() == token


@pytest.mark.parametrize("family", ["mamba", "lfm2", "qwen3_next", "jamba", "bloom"])
@torch.no_grad()
def test_greedy_tokens_are_those_of_generate_for_each_row(family, tiny_of, tiny_model):
    language_model = language_model_of(family, tiny_of, tiny_model)
    prompts = language_model.encode_prompts(PROMPTS, 8)
    ours = native(language_model, prompts, max_new_tokens=8, temperature=0.0)
    for i in range(len(prompts)):
        ids = prompts.prompt_ids[i][prompts.prompt_mask[i].bool()][None]
        theirs = language_model.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert ours.response_ids[i][ours.response_mask[i].bool()].tolist() == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("family", ["mamba", "lfm2", "jamba", "bloom", "llama"])
@torch.no_grad()
def test_generate_itself_is_given_no_padding_that_a_state_would_read(family, tiny_of, tiny_model):
    language_model = language_model_of(family, tiny_of, tiny_model)
    assert reads_padding(language_model) == (family in ("bloom", "llama"))
    rollout = transformers(language_model, language_model.encode_prompts(PROMPTS, 8).repeat(2), max_new_tokens=8)
    assert worst_difference(language_model, rollout) < 1e-4


@pytest.mark.parametrize("family", ["mamba", "lfm2", "bloom"])
def test_continuous_batching_refuses_models_whose_layers_it_cannot_page(family, tiny_of, tiny_model):
    language_model = language_model_of(family, tiny_of, tiny_model)
    with pytest.raises(ConfigError, match="choose rollout_sampler=native"):
        continuous(language_model, language_model.encode_prompts(PROMPTS, 8), max_new_tokens=8)


def test_old_cache_names_are_passed_to_no_model(tiny_of, tiny_model):
    """transformers drops them in 5.40."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for family in ("mamba", "llama", "mistral", "jamba"):
            language_model = language_model_of(family, tiny_of, tiny_model)
            native(language_model, language_model.encode_prompts(PROMPTS, 4), max_new_tokens=4)
            assert is_recurrent(language_model.model) == (family in ("mamba", "jamba"))
    assert not [text for text in map(str, caught) if "past_key_values" in text or "cache_params" in text]
