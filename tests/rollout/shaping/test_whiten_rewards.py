from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.rollout.shaping.whiten_rewards import check_finite, whiten_rewards


def test_the_variance_becomes_1_and_the_mean_stays(scored_of: Any) -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    rewards = torch.where(mask.bool(), 7 * torch.randn(3, 4) + 2, float("nan"))
    shaped = whiten_rewards(scored_of(mask, rewards=rewards))
    inside = shaped.rewards[mask.bool()]
    assert inside.std() == pytest.approx(1.0, abs=1e-5)
    assert inside.mean() == pytest.approx(rewards[mask.bool()].mean().item(), abs=1e-5)
    assert torch.equal(shaped.rewards[~mask.bool()], torch.zeros(3))
    assert rewards[0, 3].isnan()


def test_a_reward_too_large_to_square_is_refused(scored_of: Any) -> None:
    with pytest.raises(DataError, match="clip_score"):
        whiten_rewards(scored_of(torch.ones(2, 2), scores=torch.tensor([1e30, 0.0])))


def test_a_batch_of_equal_rewards_or_without_tokens_stays(scored_of: Any) -> None:
    rewards = torch.full((2, 2), 3.0)
    assert torch.equal(whiten_rewards(scored_of(torch.ones(2, 2), rewards=rewards)).rewards, rewards)
    assert torch.equal(whiten_rewards(scored_of(torch.zeros(2, 2), rewards=rewards)).rewards, torch.zeros(2, 2))


@pytest.mark.parametrize("wild", [float("inf"), float("nan")])
def test_one_wild_deviation_among_others_is_refused(wild: float) -> None:
    check_finite(torch.tensor([1.0, 0.0]))
    with pytest.raises(DataError, match=r"too large to normalise in torch\.float32"):
        check_finite(torch.tensor([1.0, wild]))
