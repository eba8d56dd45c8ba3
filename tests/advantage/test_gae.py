from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.errors import ConfigError, DataError


def double_sum(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """The definition, A[i] = sum over j >= i of (gamma lam)^(j - i) delta[j], over the tokens of the mask alone."""
    advantages = torch.zeros_like(rewards)
    for row in range(len(mask)):
        steps = mask[row].nonzero().flatten().tolist()
        r, v = rewards[row, steps].tolist(), [*values[row, steps].tolist(), 0.0]
        deltas = [r[j] + gamma * v[j + 1] - v[j] for j in range(len(steps))]
        for i, t in enumerate(steps):
            advantages[row, t] = sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, len(steps)))
    return advantages


def test_gae_is_the_double_sum_on_random_masks(scored_of: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for trial in range(1000):
        rows, steps = int(torch.randint(1, 4, (), generator=generator)), int(torch.randint(1, 9, (), generator=generator))
        mask = torch.rand(rows, steps, generator=generator) < (0.2, 0.6, 1.0)[trial % 3]  # mostly empty rows, holes, full
        rewards, values = torch.randn(2, rows, steps, dtype=torch.float64, generator=generator)
        gamma, lam = torch.rand(2, dtype=torch.float64, generator=generator).tolist()
        made = gae(scored_of(mask, rewards=rewards, values=values), gamma=gamma, lam=lam, whiten=False)
        expected = double_sum(rewards, values, mask, gamma, lam)
        worst = max(worst, float((made.advantages - expected).abs().max()))
        assert torch.equal(made.returns != 0, mask)
        worst = max(worst, float((made.returns - torch.where(mask, expected + values, 0.0)).abs().max()))
    assert worst < 1e-12


def test_whitened_advantages_have_mean_0_and_variance_1_and_returns_are_not_whitened(scored_of: Any) -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    scored = scored_of(mask, rewards=torch.randn(2, 4), values=torch.randn(2, 4))
    whitened, raw = gae(scored), gae(scored, whiten=False)
    chosen = whitened.advantages[mask.bool()]
    assert chosen.mean().abs() < 1e-6
    assert chosen.std() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(whitened.advantages[~mask.bool()], torch.zeros(3))
    assert torch.equal(whitened.returns, raw.returns)


def test_advantages_are_held_within_the_limit_after_whitening(scored_of: Any) -> None:
    torch.manual_seed(0)
    scored = scored_of(torch.ones(4, 5), rewards=9 * torch.randn(4, 5), values=torch.randn(4, 5))
    free, held = gae(scored), gae(scored, advantage_clip=0.75)
    assert free.advantages.abs().max() > 0.75
    assert torch.equal(held.advantages, free.advantages.clamp(-0.75, 0.75))
    assert torch.equal(held.returns, free.returns)


def test_whitening_one_token_gives_0(scored_of: Any) -> None:
    made = gae(scored_of(torch.tensor([[1, 0]]), rewards=torch.tensor([[3.0, 0.0]]), values=torch.zeros(1, 2)))
    assert torch.equal(made.advantages, torch.zeros(1, 2))
    assert torch.equal(made.returns, torch.tensor([[3.0, 0.0]]))


def test_what_stands_outside_the_mask_changes_nothing(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1, 0]])
    clean = scored_of(mask, rewards=torch.tensor([[1.0, 2.0, 0.0]]), values=torch.tensor([[0.5, -1.0, 0.0]]))
    junk = scored_of(mask, rewards=torch.tensor([[1.0, 2.0, float("nan")]]), values=torch.tensor([[0.5, -1.0, float("inf")]]))
    assert torch.equal(gae(clean).advantages, gae(junk).advantages)
    assert torch.equal(gae(clean).returns, gae(junk).returns)


def test_advantages_and_returns_carry_no_gradient(scored_of: Any) -> None:
    values = torch.zeros(1, 2, requires_grad=True)
    made = gae(scored_of(torch.ones(1, 2), rewards=torch.ones(1, 2), values=values))
    assert not made.advantages.requires_grad
    assert not made.returns.requires_grad


def test_no_critic_is_refused(scored_of: Any) -> None:
    with pytest.raises(ConfigError, match="needs a critic's values"):
        gae(scored_of(torch.ones(1, 2)))


def test_rewards_too_large_to_whiten_are_refused_and_not_silently_0(scored_of: Any) -> None:
    scored = scored_of(torch.ones(2, 2), scores=torch.tensor([1e30, 1.0]), values=torch.zeros(2, 2))
    with pytest.raises(DataError, match="clip_score"):
        gae(scored)
    assert gae(scored, whiten=False).advantages.isfinite().all()
