"""policy_tuning=lora: adapters and critic's head alone learn, packed as ever, and the reference is the model without them."""

from __future__ import annotations

import copy
import sys

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.critic.separate import separate as separate_critic
from rlhf_lightning.policy.critic.shared import shared_critic
from rlhf_lightning.policy.model import Policy, StartPolicy, reference_policy
from rlhf_lightning.policy.tuning.lora import lora
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.sampler.transformers import transformers

pytest.importorskip("peft")
PROMPTS = ["It", "Review of a lamp:\n", "a quiet fan, and it costs"]


def rollout_of(language_model, sampler=native):
    torch.manual_seed(1)
    return sampler(language_model, language_model.encode_prompts(PROMPTS, 12).repeat(2), max_new_tokens=12)


def learn(policy, rollout, steps=3):
    """A few updates with values and log-probabilities in the loss."""
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        output = policy(rollout)
        optimizer.zero_grad()
        (output.log_probs.mean() + output.entropy.mean() + (output.values - 1).square().mean()).backward()
        optimizer.step()


def test_the_reference_is_the_start_before_and_after_updates(language_model):
    start = Policy(copy.deepcopy(language_model))
    lora(language_model.model, rank=4, alpha=8.0)
    rollout = rollout_of(language_model)
    reference, policy = reference_policy(language_model, language_model), Policy(language_model, shared_critic(language_model, None))
    with torch.no_grad():
        said = start(rollout)
        for output in (policy(rollout), reference(rollout)):
            assert (output.log_probs - said.log_probs).abs().max() <= 1e-6
    learn(policy, rollout)
    with torch.no_grad():
        assert (policy(rollout).log_probs - said.log_probs).abs().max() > 0.01
        assert (reference(rollout).log_probs - said.log_probs).abs().max() <= 1e-6
        assert reference(rollout, entropy=False).entropy is None


def test_the_reference_holds_no_second_copy_and_freezing_it_freezes_nothing(language_model):
    plain = sum(parameter.numel() for parameter in language_model.model.parameters())
    lora(language_model.model, rank=2)
    trained = [parameter for parameter in language_model.model.parameters() if parameter.requires_grad]
    reference = reference_policy(language_model, language_model)
    assert isinstance(reference, StartPolicy)
    assert list(reference.parameters()) == []
    reference.eval().requires_grad_(False).to("cpu")
    assert [parameter for parameter in language_model.model.parameters() if parameter.requires_grad] == trained
    assert sum(p.numel() for p in language_model.model.parameters()) == plain + sum(p.numel() for p in trained)


def test_another_model_is_frozen_as_a_copy(language_model, tiny_of):
    reference = reference_policy(language_model, tiny_of("gpt2"))
    assert isinstance(reference, Policy)
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    assert all(parameter.requires_grad for parameter in language_model.model.parameters())


@pytest.mark.parametrize("separate", [False, True])
def test_adapters_and_the_critics_head_learn_and_the_weights_beside_them_stay(language_model, separate):
    lora(language_model.model)
    policy = Policy(language_model, (separate_critic if separate else shared_critic)(language_model, None))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    learn(policy, rollout_of(language_model))
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name for name in changed if "lora_" not in name} == {"critic.head.weight", "critic.head.bias"}
    assert any(name.startswith("critic.trunk") for name in changed) == separate


@pytest.mark.parametrize("sampler", [native, transformers])
def test_samplers_draw_from_the_adapted_policy(language_model, sampler):
    lora(language_model.model)
    learn(Policy(language_model, shared_critic(language_model, None)), rollout_of(language_model))
    rollout = rollout_of(language_model, sampler)
    with torch.no_grad():
        said = Policy(language_model)(rollout).log_probs
    assert (said - rollout.sampled_log_probs).abs().max() < 1e-4


def test_the_output_layer_has_none(language_model):
    lora(language_model.model)
    assert isinstance(language_model.model.get_output_embeddings(), torch.nn.Linear)
    assert not language_model.model.get_output_embeddings().weight.requires_grad


def test_a_target_that_is_nowhere_is_refused(language_model):
    with pytest.raises(ConfigError, match=r"policy_tuning\.targets=\['nowhere'\]"):
        lora(language_model.model, targets=("nowhere",))


def test_without_peft_the_extra_is_named(language_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"policy_tuning=lora needs more packages: pip install 'rlhf-lightning\[lora\]'"):
        lora(language_model.model)
