from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlhf_lightning.policy.loss.ppo_clip import ppo_clip


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # better and likelier: held at 1.2
        (0.5, 2.0, -1.0, -1.0),  # better and less likely: pulled back
        (0.5, -2.0, 1.6, 0.0),  # worse and less likely: held at 0.8
        (1.5, -2.0, 3.0, 3.0),  # worse and likelier: pushed back
    ],
)
def test_the_five_cases_of_the_clip(experience_of: Any, ratio: float, advantage: float, loss: float, slope: float) -> None:
    log_probs = torch.tensor([[math.log(ratio) - 1.0]], dtype=torch.float64, requires_grad=True)
    experience = experience_of(torch.ones(1, 1), torch.tensor([[advantage]]), old_log_probs=torch.tensor([[-1.0]]))
    per_token, metrics = ppo_clip(experience, log_probs, clip_ratio=0.2)
    per_token.sum().backward()
    assert per_token.item() == pytest.approx(loss)
    assert log_probs.grad is not None
    assert log_probs.grad.item() == pytest.approx(slope)
    assert metrics["policy/clipfrac_avg"] == float(slope == 0)


def test_clip_higher_moves_only_the_upper_bound(experience_of: Any) -> None:
    log_probs = torch.tensor([1.5, 0.5]).log()[:, None]
    experience = experience_of(torch.ones(2, 1), torch.tensor([[1.0], [-1.0]]))
    per_token, _ = ppo_clip(experience, log_probs, clip_ratio=0.2, clip_ratio_high=0.28)
    assert torch.allclose(per_token, torch.tensor([[-1.28], [0.8]]))
