from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.policy.objective import clipped_surrogate, log_ratio_of, ratio_metrics, ratio_of, within_mask


def test_metrics_are_over_the_mask_and_the_kl_is_that_of_the_whole_log_ratio(experience_of: Any) -> None:
    log_probs = torch.tensor([[0.5, -0.2, 7.0], [30.0, 7.0, 7.0]], requires_grad=True)
    experience = experience_of(torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.ones(2, 3))
    log_ratio = log_ratio_of(experience, log_probs)
    ratio = ratio_of(log_ratio)
    metrics = ratio_metrics(experience, log_ratio, ratio, log_ratio > 0.1)
    kept = torch.tensor([0.5, -0.2, 20.0]).exp()
    assert metrics["policy/clipfrac_avg"] == pytest.approx(2 / 3)
    assert metrics["policy/approxkl_avg"] == pytest.approx((0.25 + 0.04 + 900) / 6)
    assert metrics["val/ratio"] == pytest.approx(kept.mean().item(), rel=1e-6)
    assert metrics["val/ratio_var"] == pytest.approx(((kept - 1) ** 2).mean().item(), rel=1e-5)
    assert not any(value.requires_grad for value in metrics.values())


def test_beyond_the_limit_the_ratio_is_held_and_teaches_nothing() -> None:
    log_ratio = torch.tensor([-25.0, 19.0, 25.0], dtype=torch.float64, requires_grad=True)
    ratio = ratio_of(log_ratio)
    (slope,) = torch.autograd.grad(ratio.sum(), log_ratio)
    assert torch.equal(ratio.detach().log().round(), torch.tensor([-20.0, 19.0, 20.0], dtype=torch.float64))
    assert slope[0] == 0
    assert slope[1] == ratio[1]
    assert slope[2] == 0


def test_the_surrogate_is_the_worse_of_the_two_for_any_ratio() -> None:
    ratio, advantages = torch.linspace(0, 3, 61)[:, None], torch.tensor([[-1.5, 0.5]])
    loss, clipped = clipped_surrogate(ratio, advantages, 0.2, 0.3)
    assert torch.equal(loss, torch.maximum(-ratio * advantages, -ratio.clamp(0.8, 1.3) * advantages))
    assert torch.equal(clipped, torch.cat([ratio < 0.8, ratio > 1.3], dim=1))


def test_an_impossible_token_is_held_at_minus_1000_and_teaches_nothing() -> None:
    log_probs = torch.tensor([[float("-inf"), -1000.5, -999.5, float("nan")]], requires_grad=True)
    held = within_mask(log_probs, torch.tensor([[1, 1, 1, 0]]))
    held.sum().backward()
    assert held.tolist() == [[-1000.0, -1000.0, -999.5, 0.0]]
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [[0.0, 0.0, 1.0, 0.0]]
