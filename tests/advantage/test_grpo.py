from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.errors import DataError

GROUP = torch.tensor([7, -3, 7, 100, -3, 7])
REWARDS = torch.tensor([1.0, 5.0, 2.5, 9.0, -1.0, 4.0], dtype=torch.float64)


def test_rows_are_normalised_in_their_group(scored_of: Any) -> None:
    made = grpo(scored_of(torch.ones(6, 1), rewards=REWARDS[:, None], group=GROUP))
    for group in (7, -3):
        rewards = REWARDS[group == GROUP]
        expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        assert torch.allclose(made.advantages[group == GROUP, 0], expected, rtol=0, atol=1e-14)
    assert made.advantages[3] == 0  # alone in its group
    assert made.returns is None


@pytest.mark.parametrize("score", [0.1, 5.3, -1234.56])
def test_equal_rewards_give_exactly_0(scored_of: Any, score: float) -> None:
    scores = torch.full((7,), score)
    assert scores.mean() != scores[0] or score == 5.3  # the mean of equal floats needn't be that float
    assert torch.equal(grpo(scored_of(torch.ones(7, 3), scores=scores)).advantages, torch.zeros(7, 3))


def test_scale_and_shift_of_the_rewards_do_not_matter(scored_of: Any) -> None:
    def of(rewards: torch.Tensor) -> torch.Tensor:
        return grpo(scored_of(torch.ones(6, 1), rewards=rewards[:, None], group=GROUP), eps=1e-12).advantages

    assert torch.allclose(of(REWARDS), of(1000 * REWARDS - 77), rtol=1e-9)


def test_rewards_too_large_to_square_are_refused(scored_of: Any) -> None:
    scored = scored_of(torch.ones(3, 1), scores=torch.tensor([1e30, 1.0, 2.0]))
    with pytest.raises(DataError, match="clip_score"):
        grpo(scored)
