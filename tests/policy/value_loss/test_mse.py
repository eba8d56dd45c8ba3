from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.value_loss.mse import mse


def test_it_is_half_the_squared_error_inside_the_mask(experience_of: Any) -> None:
    returns = torch.tensor([[3.0, 0.0, float("nan")]])
    values = torch.tensor([[1.0, -1.0, 5.0]], requires_grad=True)
    loss, metrics = mse(experience_of(torch.tensor([[1, 1, 0]]), torch.zeros(1, 3), returns), values)
    loss.sum().backward()
    assert torch.equal(loss, torch.tensor([[2.0, 0.5, 0.0]]))
    assert torch.equal(values.grad, torch.tensor([[-2.0, -1.0, 0.0]]))  # type: ignore[arg-type]
    assert metrics == {}


def test_an_estimator_without_returns_is_refused(experience_of: Any) -> None:
    with pytest.raises(ConfigError, match="advantage=gae"):
        mse(experience_of(torch.ones(1, 1), torch.zeros(1, 1)), torch.zeros(1, 1))
