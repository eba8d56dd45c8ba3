from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.advantage.reinforce import reinforce


def test_it_is_the_discounted_return(scored_of: Any) -> None:
    made = reinforce(scored_of(torch.ones(1, 3), rewards=torch.tensor([[1.0, 2.0, 4.0]])), gamma=0.5)
    assert torch.equal(made.advantages, torch.tensor([[3.0, 4.0, 4.0]]))
    assert made.returns is None


def test_a_token_outside_the_mask_takes_no_time(scored_of: Any) -> None:
    made = reinforce(scored_of(torch.tensor([[1, 0, 1]]), rewards=torch.tensor([[1.0, 99.0, 4.0]])), gamma=0.5)
    assert torch.equal(made.advantages, torch.tensor([[3.0, 0.0, 4.0]]))
