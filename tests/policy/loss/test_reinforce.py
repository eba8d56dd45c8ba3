from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.policy.loss.reinforce import reinforce


def test_the_gradient_is_minus_the_advantage_whatever_the_old_policy(experience_of: Any) -> None:
    advantages = torch.tensor([[1.0, -2.0, 5.0]])
    log_probs = torch.tensor([[-0.5, -3.0, -1.0]], requires_grad=True)
    experience = experience_of(torch.tensor([[1, 1, 0]]), advantages, old_log_probs=torch.full((1, 3), -9.0))
    per_token, metrics = reinforce(experience, log_probs)
    per_token.sum().backward()
    assert torch.equal(per_token, torch.tensor([[0.5, -6.0, 0.0]]))
    assert log_probs.grad is not None
    assert torch.equal(log_probs.grad, torch.tensor([[-1.0, 2.0, 0.0]]))
    assert metrics["policy/clipfrac_avg"] == 0
