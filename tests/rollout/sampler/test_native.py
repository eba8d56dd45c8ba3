"""The sampler, against the plain forward of transformers without padding and without a cache."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import OverlongPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.rollout.sampler import _decoder
from rlhf_lightning.rollout.sampler.continuous import continuous
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers
from rlhf_lightning.tensors import log_probs_of

PROMPTS = ["It", "Review of a lamp:\n", "The kettle boils water", "a quiet fan, and it costs"]


def brute_force_log_probs(language_model: LanguageModel, prompt: torch.Tensor, response: torch.Tensor, temperature: float) -> torch.Tensor:
    """One row, no padding, no cache: the log-probability of each response token."""
    ids = torch.cat([prompt, response])[None]
    logits = language_model.model(input_ids=ids, use_cache=False).logits[0].float() / temperature
    return torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, response[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("sampler", [native, transformers, continuous])
@torch.no_grad()
def test_log_probs_are_those_of_an_unpadded_forward(language_model, sampler, temperature):
    torch.manual_seed(1)
    prompts = language_model.encode_prompts(PROMPTS, 12).repeat(4)
    rollout = sampler(language_model, prompts, max_new_tokens=12, temperature=temperature)
    worst = 0.0
    for i in range(len(rollout)):
        prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
        response = rollout.response_ids[i][rollout.response_mask[i].bool()]
        expected = brute_force_log_probs(language_model, prompt, response, temperature)
        worst = max(worst, (rollout.sampled_log_probs[i, : len(response)] - expected).abs().max().item())
    assert worst < 2e-5
    assert (rollout.sampled_log_probs[rollout.response_mask == 0] == 0).all()


@pytest.mark.parametrize("sampler", [native, transformers, continuous])
@torch.no_grad()
def test_sampler_and_policy_agree(language_model, sampler):
    torch.manual_seed(2)
    rollout = sampler(language_model, language_model.encode_prompts(PROMPTS, 12).repeat(4), max_new_tokens=12)
    output = Policy(language_model)(rollout)
    assert (output.log_probs - rollout.sampled_log_probs).abs().max() < 2e-5
    assert (output.log_probs[rollout.response_mask == 0] == 0).all()


@torch.no_grad()
def test_the_mask_ends_with_the_first_eos_and_the_text_has_no_special_tokens(language_model):
    torch.manual_seed(3)
    eos = language_model.eos_ids[0]
    language_model.model.get_output_embeddings().weight[eos] = language_model.model.get_output_embeddings().weight.mean(0) * 30
    rollout = native(language_model, language_model.encode_prompts(PROMPTS, 20).repeat(16), max_new_tokens=20)
    assert rollout.has_eos.any()
    for i in range(len(rollout)):
        length = int(rollout.response_mask[i].sum())
        assert rollout.response_mask[i, :length].all()
        ids = rollout.response_ids[i].tolist()
        assert eos not in ids[: length - 1]
        assert (ids[length - 1] == eos) == bool(rollout.has_eos[i])
        assert rollout.has_eos[i] or length == 20
        assert set(ids[length:]) <= {language_model.pad_id}
    assert "<|" not in "".join(rollout.responses)


@torch.no_grad()
def test_greedy_is_the_argmax_and_matches_transformers(language_model):
    prompts = language_model.encode_prompts(PROMPTS, 10)
    ours = native(language_model, prompts, max_new_tokens=10, temperature=0.0)
    theirs = language_model.model.generate(
        input_ids=prompts.prompt_ids, attention_mask=prompts.prompt_mask, do_sample=False, max_new_tokens=10,
        eos_token_id=language_model.eos_ids, pad_token_id=language_model.pad_id,
    )[:, prompts.prompt_ids.shape[1] :]  # fmt: skip
    assert torch.equal(ours.response_ids, theirs[:, : ours.response_ids.shape[1]])


@torch.no_grad()
def test_samples_follow_the_models_distribution(tiny_of):
    """4,000 first tokens against the exact probabilities: a chi-squared distance within what chance gives."""
    language_model = tiny_of("llama")
    torch.manual_seed(4)
    prompts = language_model.encode_prompts(["It"], 1).repeat(4000)
    rollout = native(language_model, prompts, max_new_tokens=1)
    logits = language_model.model(input_ids=prompts.prompt_ids[:1]).logits[0, -1]
    expected = logits.softmax(-1) * 4000
    counts = torch.bincount(rollout.response_ids[:, 0], minlength=len(expected)).float()
    common = expected > 5
    statistic = ((counts - expected)[common] ** 2 / expected[common]).sum() / (common.sum() - 1)
    assert 0.4 < statistic < 1.8


@torch.no_grad()
def test_top_p_draws_from_the_smallest_set_with_that_probability(tiny_of):
    language_model = tiny_of("gpt2")
    torch.manual_seed(5)
    prompts = language_model.encode_prompts(["The kettle"], 1).repeat(500)
    rollout = native(language_model, prompts, max_new_tokens=1, top_p=0.3)
    logits = language_model.model(input_ids=prompts.prompt_ids[:1]).logits[0, -1]
    probabilities, order = logits.softmax(-1).sort(descending=True)
    allowed = set(order[: int((probabilities.cumsum(0) < 0.3).sum()) + 1].tolist())
    assert set(rollout.response_ids[:, 0].tolist()) == allowed
    full = log_probs_of(logits.expand(500, -1), rollout.response_ids[:, 0])
    assert torch.allclose(rollout.sampled_log_probs[:, 0], full, atol=1e-5)


def test_a_prompt_that_does_not_fit_is_refused_with_what_to_change(language_model):
    with pytest.raises(OverlongPrompt, match=r"don't fit the model's 64 positions.*lower rollout_sampler.max_new_tokens to \d+$"):
        language_model.encode_prompts(["The kettle boils water quickly."], 60)
    with pytest.raises(OverlongPrompt, match=r"don't fit the model's 64 positions.*shorten it or filter it out$"):
        language_model.encode_prompts(["The kettle boils water quickly. " * 12], 20)


@pytest.mark.parametrize("top_p", [1.0, 0.8])
@torch.no_grad()
def test_with_and_without_padding_the_same_is_drawn(language_model, monkeypatch, top_p):
    """Of the same random numbers, as long as no row has left: rows that stay may change places."""
    language_model.model.generation_config.eos_token_id = 10**6
    prompts = language_model.encode_prompts(PROMPTS, 12).repeat(4)
    drawn = []
    for packs in (True, False):
        if not packs:
            monkeypatch.setattr(_decoder, "supports_packing", lambda trunk: False)
        torch.manual_seed(0)
        drawn.append(native(language_model, prompts, max_new_tokens=12, top_p=top_p))
    assert torch.equal(drawn[0].response_ids, drawn[1].response_ids)
    assert (drawn[0].sampled_log_probs - drawn[1].sampled_log_probs).abs().max() < 1e-5
