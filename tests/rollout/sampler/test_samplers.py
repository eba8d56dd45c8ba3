"""Every registered sampler is held to the same: the tokens' log-probabilities are the policy's, and masks say where a response ends."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.flow import Rollout
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.rollout.sampler.continuous import continuous
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers
from rlhf_lightning.rollout.sampler.vllm import VLLMSampler
from tests.rollout.sampler.test_vllm import Engine, SamplingParams

PROMPTS = ["It", "Review of a lamp:\n", "a quiet fan, and it costs"]
SAMPLERS = {"native": native, "transformers": transformers, "continuous": continuous, "vllm": VLLMSampler}


def drawn(name: str, language_model, monkeypatch: pytest.MonkeyPatch, **settings) -> Rollout:
    """A rollout of nine responses; vLLM's engine is stood in for."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Engine, SamplingParams=SamplingParams))
    prompts = language_model.encode_prompts(PROMPTS, 8).repeat(3)
    if name == "vllm":
        return VLLMSampler(max_new_tokens=8, **settings)(language_model, prompts)
    return SAMPLERS[name](language_model, prompts, max_new_tokens=8, **settings)


def test_every_sampler_is_here():
    registry.load_components()
    assert set(SAMPLERS) == {component.name for component in registry.components("rollout_sampler")}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("sampler", SAMPLERS)
@torch.no_grad()
def test_log_probabilities_are_the_policy_s(language_model, monkeypatch, sampler, temperature):
    rollout = drawn(sampler, language_model, monkeypatch, temperature=temperature)
    assert rollout.temperature == temperature
    own = Policy(language_model)(rollout).log_probs
    assert (own - rollout.sampled_log_probs).abs().max() < 1e-4
    assert (rollout.sampled_log_probs[rollout.response_mask == 0] == 0).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@torch.no_grad()
def test_a_response_ends_at_its_first_end_or_at_the_limit(language_model, monkeypatch, sampler):
    rollout = drawn(sampler, language_model, monkeypatch)
    ends = torch.isin(rollout.response_ids, torch.tensor(language_model.eos_ids)) & rollout.response_mask.bool()
    lengths = rollout.response_mask.sum(1)
    assert (lengths >= 1).all()
    assert ((torch.arange(rollout.response_mask.shape[1]) < lengths[:, None]) == rollout.response_mask.bool()).all()
    assert (ends.sum(1) == rollout.has_eos.long()).all()
    assert (lengths[~rollout.has_eos] == 8).all()
    last = rollout.response_ids.gather(1, lengths[:, None] - 1)[:, 0]
    assert (torch.isin(last, torch.tensor(language_model.eos_ids)) == rollout.has_eos).all()
    assert rollout.responses == language_model.decode(rollout.response_ids, rollout.response_mask)


@pytest.mark.parametrize("sampler", ["native", "transformers"])
@torch.no_grad()
def test_seeds_say_what_is_drawn(language_model, sampler):
    prompts = language_model.encode_prompts(PROMPTS, 8)
    prompts.seeds = torch.tensor([5, 6, 7])
    first, again = (SAMPLERS[sampler](language_model, prompts, max_new_tokens=8) for _ in range(2))
    assert torch.equal(first.response_ids, again.response_ids)
    prompts.seeds = torch.tensor([8, 9, 10])
    other = SAMPLERS[sampler](language_model, prompts, max_new_tokens=8)
    assert first.responses != other.responses


@torch.no_grad()
def test_a_response_is_drawn_alike_in_any_company(language_model):
    prompts = language_model.encode_prompts(PROMPTS, 8).repeat(4)
    prompts.seeds = torch.arange(12)
    together = native(language_model, prompts, max_new_tokens=8)
    for row in range(12):
        assert native(language_model, prompts.select(torch.tensor([row])), max_new_tokens=8).responses == [together.responses[row]]
