"""Measuring a policy: what is asked, what is drawn, the KL by hand, and that nothing around it changes."""

from __future__ import annotations

import functools

import pytest
import torch

from rlhf_lightning.evaluation.measure import Measured, measure
from rlhf_lightning.evaluation.settings import EvaluationSettings
from rlhf_lightning.flow import Rollout
from rlhf_lightning.interfaces import TaskPrompt
from rlhf_lightning.rollout.sampler.native import native

PROMPTS = ["It", "Review of a lamp:\n", "The kettle boils water"]


def tokens(rollout: Rollout) -> torch.Tensor:
    return rollout.response_mask.sum(1).float()


class Watched:
    """The native sampler, which keeps what it drew."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.sampler = functools.partial(native, max_new_tokens=6, temperature=temperature)
        self.drawn: list[Rollout] = []

    def __call__(self, language_model, prompts) -> Rollout:
        assert not language_model.model.training
        self.drawn.append(self.sampler(language_model, prompts))
        return self.drawn[-1]


def measured_with(language_model, sampler=None, reference=None, seed=0, responses=7, batch_size=4, metrics=None) -> Measured:
    settings = EvaluationSettings(responses=responses, batch_size=batch_size)
    return measure(
        language_model, list(map(TaskPrompt, PROMPTS)), sampler or Watched(), metrics or {"length": tokens}, settings,
        max_new_tokens=6, seed=seed, reference=reference,
    )  # fmt: skip


def test_prompts_are_used_in_turn_and_every_metric_is_applied(tiny_of):
    sampler = Watched()
    letters = {"length": tokens, "letters": lambda rollout: torch.tensor([len(text) for text in rollout.responses])}
    found = measured_with(tiny_of("llama"), sampler, metrics=letters)
    assert found.prompts == [*PROMPTS, *PROMPTS, PROMPTS[0]]
    assert [len(rollout) for rollout in sampler.drawn] == [4, 3]
    assert found.responses == [text for rollout in sampler.drawn for text in rollout.responses]
    assert found.values["length"] == [float(n) for rollout in sampler.drawn for n in rollout.response_mask.sum(1)]
    assert found.values["letters"] == [len(text) for text in found.responses]
    assert found.mean("letters") == pytest.approx(sum(map(len, found.responses)) / 7)
    assert found.kl is None


def test_the_seed_decides_what_is_drawn_and_nothing_around_changes(tiny_of):
    language_model = tiny_of("gpt2")
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = measured_with(language_model)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert measured_with(language_model) == first
    assert measured_with(language_model, seed=1).responses != first.responses
    for training in (True, False):
        language_model.model.train(training)
        gradients = [parameter.requires_grad for parameter in language_model.model.parameters()]
        measured_with(language_model, reference=tiny_of("gpt2", seed=1))
        assert language_model.model.training is training
        assert [parameter.requires_grad for parameter in language_model.model.parameters()] == gradients


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_the_kl_is_the_mean_log_ratio_of_a_response(tiny_of, temperature):
    language_model, reference = tiny_of("llama"), tiny_of("llama", seed=1)
    sampler = Watched(temperature)
    found = measured_with(language_model, sampler, reference)
    ratios = []
    for rollout in sampler.drawn:
        for i in range(len(rollout)):
            prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
            response = rollout.response_ids[i][rollout.response_mask[i].bool()]
            log_probs = [
                (model.model(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1] / temperature)
                .log_softmax(-1)
                .gather(1, response[:, None])
                .sum()
                for model in (language_model, reference)
            ]
            ratios.append(float(log_probs[0] - log_probs[1]))
    assert found.kl == pytest.approx(sum(ratios) / 7, rel=1e-4)
    assert found.kl > 1
    assert measured_with(language_model, reference=tiny_of("llama")).kl == 0
