from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.policy.loss.cispo import cispo


def test_the_clipped_ratio_is_a_weight_without_gradient(experience_of: Any) -> None:
    ratios, advantages = torch.tensor([[0.5, 1.1, 4.0]]), torch.tensor([[1.0, -2.0, 3.0]])
    log_probs = ratios.log().requires_grad_()
    per_token, metrics = cispo(experience_of(torch.ones(1, 3), advantages), log_probs, clip_ratio=0.2, clip_ratio_high=0.28)
    per_token.sum().backward()
    weights = torch.tensor([[0.8, 1.1, 1.28]])
    assert torch.allclose(per_token, -weights * advantages * log_probs)
    assert log_probs.grad is not None
    assert torch.allclose(log_probs.grad, -weights * advantages)
    assert torch.isclose(metrics["policy/clipfrac_avg"], torch.tensor(2 / 3))


def test_by_default_a_token_that_became_rare_keeps_its_small_weight(experience_of: Any) -> None:
    log_probs = torch.tensor([[0.01]]).log().requires_grad_()
    per_token, metrics = cispo(experience_of(torch.ones(1, 1), torch.ones(1, 1)), log_probs)
    per_token.sum().backward()
    assert log_probs.grad is not None
    assert torch.isclose(log_probs.grad, torch.tensor([[-0.01]])).all()
    assert metrics["policy/clipfrac_avg"] == 0
