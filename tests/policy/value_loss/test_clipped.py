from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss


def test_a_value_that_moved_too_far_towards_its_return_stops_learning(experience_of: Any) -> None:
    old, returns = torch.zeros(1, 4), torch.full((1, 4), 1.0)
    values = torch.tensor([[0.1, 0.5, -0.5, 0.7]], requires_grad=True)  # near, far and right, far and wrong, outside the mask
    experience = experience_of(torch.tensor([[1, 1, 1, 0]]), torch.zeros(1, 4), returns, values=old)
    loss, metrics = clipped_value_loss(experience, values, clip_range=0.2)
    loss.sum().backward()
    assert torch.allclose(loss, torch.tensor([[0.9**2, 0.8**2, 1.5**2, 0.0]]) / 2)
    assert torch.allclose(values.grad, torch.tensor([[-0.9, 0.0, -1.5, 0.0]]))  # type: ignore[arg-type]
    assert metrics["val/clipfrac_avg"] == pytest.approx(1 / 3)


def test_the_gradient_is_the_finite_difference(experience_of: Any) -> None:
    torch.manual_seed(0)
    mask = (torch.arange(5) < torch.tensor([5, 2, 0])[:, None]).long()
    old, returns, values = torch.randn(3, 3, 5, dtype=torch.float64)
    experience = experience_of(mask, torch.zeros(3, 5), returns, values=old)
    assert torch.autograd.gradcheck(
        lambda v: clipped_value_loss(experience, v, clip_range=0.5)[0].sum(), values.requires_grad_(), atol=1e-7
    )


def test_what_it_needs_is_named(experience_of: Any) -> None:
    with pytest.raises(ConfigError, match="old values"):
        clipped_value_loss(experience_of(torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1)), torch.zeros(1, 1))
    with pytest.raises(ConfigError, match="advantage=gae"):
        clipped_value_loss(experience_of(torch.ones(1, 1), torch.zeros(1, 1), values=torch.zeros(1, 1)), torch.zeros(1, 1))
