from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.policy.loss.dual_clip import dual_clip


def test_the_ceiling_holds_only_a_negative_advantage(experience_of: Any) -> None:
    log_probs = torch.tensor([10.0, 10.0, 2.0, 0.1]).log()[:, None].requires_grad_()
    experience = experience_of(torch.ones(4, 1), torch.tensor([[-2.0], [2.0], [-2.0], [-2.0]]))
    per_token, metrics = dual_clip(experience, log_probs, clip_ratio=0.2, clip_ratio_c=3.0)
    per_token.sum().backward()
    assert torch.allclose(per_token, torch.tensor([[6.0], [-2.4], [4.0], [1.6]]))
    assert log_probs.grad is not None
    assert torch.allclose(log_probs.grad, torch.tensor([[0.0], [0.0], [4.0], [0.0]]))
    assert metrics["policy/clipfrac_lower_avg"] == 0.25
    assert metrics["policy/clipfrac_avg"] == 0.5
