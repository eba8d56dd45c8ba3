from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlhf_lightning.policy.loss.sapo import sapo


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 1.75, 4.0])
def test_the_gate_of_each_sign(experience_of: Any, ratio: float, advantage: float) -> None:
    log_probs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    experience = experience_of(torch.ones(1, 1), torch.full((1, 1), advantage, dtype=torch.float64))
    per_token, metrics = sapo(experience, log_probs, temperature=1.0, temperature_negative=3.0)
    per_token.sum().backward()
    tau = 1.0 if advantage > 0 else 3.0
    gate = 1 / (1 + math.exp(-tau * (ratio - 1)))
    assert per_token.item() == pytest.approx(-advantage * 4 / tau * gate)
    assert log_probs.grad is not None
    assert log_probs.grad.item() == pytest.approx(-advantage * ratio * 4 * gate * (1 - gate))
    assert metrics["policy/clipfrac_avg"] == float(4 * gate * (1 - gate) < 0.5)


def test_the_gate_closes_faster_where_the_advantage_is_negative(experience_of: Any) -> None:
    log_probs = torch.full((3, 1), 3.0).log().requires_grad_()
    per_token, _ = sapo(experience_of(torch.ones(3, 1), torch.tensor([[1.0], [-1.0], [0.0]])), log_probs)
    per_token.sum().backward()
    slope = log_probs.grad.flatten()  # type: ignore[union-attr]
    assert 0 < slope[1] < -slope[0]
    assert slope[2] == 0
