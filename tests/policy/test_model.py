"""The policy's forward: invariant to padding and batch, ratio 1 and KL 0 before the first update, entropy of the whole distribution."""

from __future__ import annotations

import copy

import pytest
import torch

from rlhf_lightning.flow import Rollout
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.critic.separate import separate as separate_critic
from rlhf_lightning.policy.critic.shared import shared_critic
from rlhf_lightning.policy.model import Critic, Policy, response_positions
from rlhf_lightning.rollout.sampler.native import native

PROMPTS = ["It", "Review of a lamp:\n", "The kettle boils water", "a quiet fan, and it costs"]


def critic_of(language_model: LanguageModel, separate: bool) -> Critic:
    """A critic whose values differ: its head would start at zero."""
    critic = (separate_critic if separate else shared_critic)(language_model, None)
    torch.nn.init.normal_(critic.head.weight, std=0.1)
    return critic


@pytest.fixture
def rollout(language_model) -> Rollout:
    torch.manual_seed(1)
    return native(language_model, language_model.encode_prompts(PROMPTS, 12).repeat(3), max_new_tokens=12)


def padded(rollout: Rollout, left: int, right: int, junk: int) -> Rollout:
    """The same rollout with more padding on both sides, filled with junk ids."""
    moved = copy.copy(rollout)
    pad = torch.nn.functional.pad
    moved.prompt_ids, moved.prompt_mask = pad(rollout.prompt_ids, (left, 0), value=junk), pad(rollout.prompt_mask, (left, 0))
    moved.response_ids, moved.response_mask = (
        pad(rollout.response_ids, (0, right), value=junk),
        pad(rollout.response_mask, (0, right)),
    )
    return moved


@pytest.mark.parametrize("critic", [None, "shared", "separate"])
@pytest.mark.parametrize(("left", "right"), [(0, 1), (7, 0), (33, 20)])
@torch.no_grad()
def test_padding_changes_nothing(language_model, rollout, critic, left, right):
    policy = Policy(language_model, None if critic is None else critic_of(language_model, critic == "separate"))
    plain, moved = policy(rollout), policy(padded(rollout, left, right, junk=5))
    steps = rollout.response_ids.shape[1]
    for name in ("log_probs", "entropy", *(["values"] if critic else [])):
        a, b = getattr(plain, name), getattr(moved, name)
        assert (a - b[:, :steps]).abs().max() < 1e-6, name
        assert (b[:, steps:] == 0).all()


@torch.no_grad()
def test_batch_order_and_size_change_nothing(language_model, rollout):
    policy = Policy(language_model, critic_of(language_model, False))
    whole = policy(rollout)
    order = torch.randperm(len(rollout), generator=torch.Generator().manual_seed(0))
    shuffled = policy(rollout.select(order))
    assert (shuffled.log_probs - whole.log_probs[order]).abs().max() < 2e-6
    for i in range(len(rollout)):
        alone = policy(rollout.select(torch.tensor([i])))
        assert (alone.log_probs[0] - whole.log_probs[i]).abs().max() < 2e-6
        assert (alone.values[0] - whole.values[i]).abs().max() < 2e-6


@torch.no_grad()
def test_kl_to_a_copy_is_exactly_zero(language_model, rollout):
    assert torch.equal(Policy(language_model)(rollout).log_probs, Policy(copy.deepcopy(language_model))(rollout).log_probs)


@torch.no_grad()
def test_entropy_is_that_of_the_full_distribution(language_model, rollout):
    output = Policy(language_model)(rollout)
    i = 5
    prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
    response = rollout.response_ids[i][rollout.response_mask[i].bool()]
    logits = language_model.model(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(output.entropy[i, : len(response)], expected, atol=1e-5)


@torch.no_grad()
def test_values_are_read_where_the_token_is_predicted(language_model, rollout):
    policy = Policy(language_model, critic_of(language_model, False))
    values = policy(rollout).values
    i = 2
    prompt = rollout.prompt_ids[i][rollout.prompt_mask[i].bool()]
    response = rollout.response_ids[i][rollout.response_mask[i].bool()]
    hidden = language_model.model.base_model(input_ids=torch.cat([prompt, response])[None]).last_hidden_state[0]
    expected = policy.critic.head(hidden[len(prompt) - 1 : -1]).squeeze(-1)
    assert torch.allclose(values[i, : len(response)], expected, atol=1e-5)


def test_joined_sequences_hold_prompt_then_response(language_model, rollout):
    tokens, places, inside = response_positions(rollout)
    assert torch.equal(tokens.ids[places + 1], rollout.response_ids[inside])
    first = torch.cat([rollout.prompt_ids[0][rollout.prompt_mask[0].bool()], rollout.response_ids[0][inside[0]]])
    assert torch.equal(tokens.ids[: tokens.lengths[0]], first)
    assert tokens.lengths.sum() == len(tokens.ids) == rollout.prompt_mask.sum() + rollout.response_mask.sum()


def test_a_separate_critic_sends_no_gradient_into_the_policy(language_model, rollout):
    policy = Policy(language_model, critic_of(language_model, True))
    policy(rollout).values.sum().backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in language_model.model.parameters())
    assert any(p.grad is not None and (p.grad != 0).any() for p in policy.critic.trunk.parameters())


@pytest.mark.parametrize("separate", [False, True])
def test_an_untaught_critic_values_nothing_and_leaves_the_trunk_alone(language_model, rollout, separate):
    policy = Policy(language_model, (separate_critic if separate else shared_critic)(language_model, None))
    values = policy(rollout).values
    assert (values == 0).all()
    (values - 1).pow(2).sum().backward()
    trunks = [language_model.model.base_model, *([policy.critic.trunk] if separate else [])]
    assert all(p.grad is None or (p.grad == 0).all() for trunk in trunks for p in trunk.parameters())
    assert (policy.critic.head.weight.grad != 0).any()
