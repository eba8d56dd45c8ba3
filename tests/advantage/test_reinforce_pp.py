from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.advantage.reinforce_pp import reinforce_pp


def test_it_is_the_whitened_return_that_starts_again_at_a_hole(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]])
    rewards = torch.tensor([[1.0, 2.0, 99.0, 4.0], [0.0, 0.0, 0.0, 8.0]])
    made = reinforce_pp(scored_of(mask, rewards=rewards), gamma=0.5)
    returns = torch.tensor([[2.0, 2.0, 0.0, 4.0], [1.0, 2.0, 4.0, 8.0]])
    kept = returns[mask.bool()]
    expected = (returns - kept.mean()) / kept.std() * mask
    assert torch.allclose(made.advantages, expected, atol=1e-6)
    assert made.returns is None
