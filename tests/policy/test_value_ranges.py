"""Numbers too large to compute with are refused by name, and what is shown of a batch is its response tokens'."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.advantage.rloo import rloo
from rlhf_lightning.errors import UserError
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.value_ranges import MAX_ABS, check_value_ranges, value_ranges

MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize("wild", [1e30, -1e30, math.inf, -math.inf, math.nan])
def test_a_wild_reward_is_refused_with_the_response_and_its_score(scored_of, wild):
    rewards = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, wild]])
    with pytest.raises(UserError, match=r"update 7: rewards of 1 tokens .* in the response 'response 1' with the score 3 .*clip_score"):
        check_value_ranges(scored_of(MASK, rewards=rewards, scores=torch.tensor([1.0, 3.0])), 7)


def test_what_stands_outside_the_mask_is_nobody_s(scored_of):
    rewards = torch.tensor([[0.0, 1.0, math.nan], [0.0, 0.0, 2.0]])
    record = scored_of(MASK, rewards=rewards)
    check_value_ranges(record, 1)
    assert value_ranges(record)["rewards"] == [0.0, 2.0]


@pytest.mark.parametrize("advantage", [gae, grpo, rloo])
def test_the_largest_number_that_is_let_through_can_be_computed_with(scored_of, advantage):
    """Advantages are finite and not a silent 0, and so is the loss."""
    scores = torch.tensor([MAX_ABS, -MAX_ABS / 2, 0.0, MAX_ABS])
    record = scored_of(torch.ones(4, 8, dtype=torch.long), scores=scores, values=torch.zeros(4, 8))
    check_value_ranges(record, 1)
    experience = advantage(record)
    assert experience.advantages.isfinite().all()
    assert experience.advantages.abs().max() > 0.5
    losses, _ = ppo_clip(experience, torch.full((4, 8), 0.1))
    assert losses.square().sum().isfinite()
    with pytest.raises(UserError):
        check_value_ranges(scored_of(torch.ones(4, 8, dtype=torch.long), scores=2 * scores), 1)


def test_extremes_by_hand(experience_of):
    old = torch.tensor([[-1.0, -2.0, 9.0], [-1.0, -1.0, -4.0]])
    record = experience_of(MASK, torch.tensor([[1.0, -1.0, 50.0], [0.0, 2.0, 3.0]]), scores=torch.tensor([5.0, 7.0]), old_log_probs=old)
    found = value_ranges(record, old + torch.tensor([[100.0, 0.0, 500.0], [0.0, -100.0, 0.0]]))
    assert found["log_ratio_to_old"] == [-100.0, 100.0]
    assert found["log_ratio_to_reference"] == [-4.0, -1.0]
    assert found["advantages"] == [-1.0, 3.0]
    assert found["scores"] == [5.0, 7.0]
    assert "values" not in found


@pytest.mark.parametrize("log_ratio", [100.0, -100.0, -math.inf])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_an_extreme_log_ratio_gives_a_finite_loss_and_gradient(experience_of, log_ratio, advantage):
    """The new policy's log-probability is that far from the old one's (-inf: it rules the token out)."""
    old = torch.full((1, 3), -100.0)
    new = (old + torch.tensor([[log_ratio, 0.1, 0.0]])).requires_grad_()
    experience = experience_of(torch.ones(1, 3, dtype=torch.long), torch.full((1, 3), advantage), old_log_probs=old)
    losses, metrics = ppo_clip(experience, new)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert new.grad.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())
