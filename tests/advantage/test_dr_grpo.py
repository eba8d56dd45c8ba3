from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.advantage.dr_grpo import dr_grpo
from rlhf_lightning.advantage.rloo import rloo

GROUP = torch.tensor([7, -3, 7, 100, -3, 7])
REWARDS = torch.tensor([1.0, 5.0, 2.5, 9.0, -1.0, 4.0], dtype=torch.float64)


def test_rows_are_centred_in_their_group_and_not_scaled(scored_of: Any) -> None:
    scored = scored_of(torch.ones(6, 2), rewards=torch.stack([REWARDS, torch.zeros(6)], dim=1), group=GROUP)
    made = dr_grpo(scored)
    expected = torch.tensor([1 - 2.5, 5 - 2.0, 0.0, 0.0, -1 - 2.0, 4 - 2.5], dtype=torch.float64)
    assert torch.allclose(made.advantages, expected[:, None].expand(6, 2), rtol=0, atol=1e-14)
    assert made.returns is None
    sizes = torch.tensor([3, 2, 3, 1, 2, 3])[:, None]
    assert torch.allclose(made.advantages * sizes, rloo(scored).advantages * (sizes - 1), rtol=0, atol=1e-13)


def test_rewards_too_large_to_square_are_no_matter(scored_of: Any) -> None:
    made = dr_grpo(scored_of(torch.ones(2, 1), scores=torch.tensor([1e30, 0.0])))
    assert torch.allclose(made.advantages, torch.tensor([[5e29], [-5e29]]))
