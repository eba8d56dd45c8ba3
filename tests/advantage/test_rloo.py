from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.advantage.rloo import rloo

GROUP = torch.tensor([7, -3, 7, 100, -3, 7])
REWARDS = torch.tensor([1.0, 5.0, 2.5, 9.0, -1.0, 4.0], dtype=torch.float64)


def test_each_row_is_compared_with_the_others_of_its_group(scored_of: Any) -> None:
    made = rloo(scored_of(torch.ones(6, 2), rewards=torch.stack([REWARDS, torch.zeros(6)], dim=1), group=GROUP))
    expected = torch.zeros(6, dtype=torch.float64)
    for i in range(6):
        others = [REWARDS[j].item() for j in range(6) if j != i and GROUP[j] == GROUP[i]]
        expected[i] = REWARDS[i] - sum(others) / len(others) if others else 0.0
    assert torch.allclose(made.advantages, expected[:, None].expand(6, 2), rtol=0, atol=1e-14)
    assert made.returns is None


def test_a_rows_reward_is_the_sum_over_its_mask(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    made = rloo(scored_of(mask, rewards=torch.tensor([[1.0, -0.25, 50.0], [0.5, 50.0, float("nan")]])))
    assert torch.equal(made.advantages, torch.tensor([[0.25, 0.25, 0.0], [-0.25, 0.0, 0.0]]))
