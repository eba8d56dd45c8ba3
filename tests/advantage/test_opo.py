from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.advantage.opo import opo


def test_the_baseline_is_weighted_by_length(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    made = opo(scored_of(mask, scores=torch.tensor([2.0, 6.0, 5.0]), group=torch.tensor([4, 4, 9])))
    baseline = (3 * 2.0 + 1 * 6.0) / 4
    expected = torch.tensor([2.0 - baseline, 6.0 - baseline, 0.0])[:, None] * mask
    assert torch.allclose(made.advantages, expected, rtol=0, atol=1e-6)
    assert made.returns is None


def test_the_advantages_sum_to_0_over_the_tokens_of_a_group(scored_of: Any) -> None:
    torch.manual_seed(0)
    mask = (torch.arange(9) < torch.randint(1, 10, (20, 1))).long()
    group = torch.arange(20) % 4
    advantages = opo(scored_of(mask, scores=torch.randn(20), group=group)).advantages
    assert torch.allclose(torch.stack([advantages[group == g].sum() for g in range(4)]), torch.zeros(4), atol=1e-4)


def test_a_response_without_tokens_weighs_nothing_in_the_baseline(scored_of: Any) -> None:
    made = opo(scored_of(torch.tensor([[1, 0], [0, 0]]), scores=torch.tensor([5.0, 9.0])))
    assert torch.equal(made.advantages, torch.zeros(2, 2))
