"""The vLLM sampler against a stand-in with the interface of vLLM's LLM, which draws with the weights that it was given."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.rollout.sampler.vllm import VLLMSampler

PROMPTS = ["It", "Review of a lamp:\n", "a quiet fan, and it costs"]


class SamplingParams:
    def __init__(self, *, n, temperature, top_p, top_k, max_tokens, stop_token_ids, seed, detokenize, stop) -> None:
        assert detokenize == bool(stop), "the engine finds texts only in what it decodes"
        self.max_tokens, self.ends = max_tokens, set(stop_token_ids)


class Engine:
    """LLM: loads a folder, takes weights through apply_model, continues lists of ids greedily, and may only draw while awake."""

    def __init__(self, model: str, **settings: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(model)
        self.model.load_weights = lambda named: self.model.load_state_dict(dict(named), strict=False)
        self.awake, self.calls = True, []

    def apply_model(self, function: Any) -> list[Any]:
        assert self.awake
        return [function(self.model)]

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset")

    def sleep(self, level: int) -> None:
        self.awake = False

    def wake_up(self) -> None:
        self.awake = True

    @torch.no_grad()
    def generate(self, prompts: list[dict[str, list[int]]], settings: list[SamplingParams], use_tqdm: bool) -> list[Any]:
        assert self.awake
        self.calls.append("generate")
        rows = [self._row(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, settings, strict=True)]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(row))]) for row in rows]

    def _row(self, ids: list[int], settings: SamplingParams) -> list[int]:
        row: list[int] = []
        while len(row) < settings.max_tokens and not (row and row[-1] in settings.ends):
            row.append(int(self.model(torch.tensor([ids + row])).logits[0, -1].argmax()))
        return row


@pytest.fixture
def engine_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Engine, SamplingParams=SamplingParams))


def greedy(language_model, rollout: Rollout) -> bool:
    """Whether each token is the likeliest under the policy now."""
    for i in range(len(rollout)):
        prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
        response = rollout.response_ids[i][rollout.response_mask[i].bool()]
        logits = language_model.model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        if not torch.equal(logits.argmax(-1), response):
            return False
    return True


@pytest.mark.usefixtures("engine_installed")
@torch.no_grad()
def test_the_engine_draws_with_the_policy_s_weights_of_now(language_model):
    sampler = VLLMSampler(max_new_tokens=6)
    prompts = language_model.encode_prompts(PROMPTS, 6)
    first = sampler(language_model, prompts)
    assert greedy(language_model, first)
    torch.manual_seed(1)
    for parameter in language_model.model.parameters():
        parameter += torch.randn_like(parameter) * 0.2
    second = sampler(language_model, prompts)
    assert greedy(language_model, second)
    assert not greedy(language_model, first), "the weights must have changed what is drawn"
    assert sampler.engine.calls == ["reset", "generate"] * 2
    assert not sampler.engine.awake, "its memory is given back to the training"
    assert (Policy(language_model)(second).log_probs - second.sampled_log_probs).abs().max() < 1e-4


@pytest.mark.usefixtures("engine_installed")
@torch.no_grad()
def test_what_the_engine_draws_behind_a_stop_string_is_cut_off(language_model):
    prompts = language_model.encode_prompts(PROMPTS, 12)
    free = VLLMSampler(max_new_tokens=12)(language_model, prompts)
    stop = free.responses[0][4:6]
    rollout = VLLMSampler(max_new_tokens=12, stop_strings=(stop,))(language_model, prompts)
    assert rollout.responses[0] == free.responses[0].split(stop)[0]
    length = int(rollout.response_mask[0].sum())
    assert rollout.response_ids[0, :length].tolist() == free.response_ids[0, :length].tolist()
    assert rollout.has_eos[0]


def test_without_vllm_the_extra_is_named(language_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlhf-lightning\[vllm\]'"):
        VLLMSampler()(language_model, language_model.encode_prompts(PROMPTS, 4))
