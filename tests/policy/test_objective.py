from __future__ import annotations

from typing import Any

import torch

from rlhf_lightning.policy.objective import objective


def loss(experience: Any, log_probs: torch.Tensor) -> Any:
    return -experience.advantages * log_probs, {"loss": torch.tensor(1.0)}


def halved(experience: Any) -> Any:
    return torch.full_like(experience.advantages, 0.5), {"weights": torch.tensor(2.0)}


def plus(number: float) -> Any:
    return lambda experience, log_probs: (number * log_probs, {f"plus {number:g}": torch.tensor(number)})


def test_a_correction_weighs_the_loss_and_a_penalty_is_added(experience_of: Any) -> None:
    experience = experience_of(torch.ones(1, 2), torch.tensor([[2.0, -4.0]]))
    log_probs = torch.tensor([[-1.0, -3.0]], requires_grad=True)
    per_token, metrics = objective(loss, halved, plus(110.0))(experience, log_probs)
    per_token.sum().backward()
    assert torch.equal(per_token, torch.tensor([[1.0 - 110.0, -6.0 - 330.0]]))
    assert torch.equal(log_probs.grad, torch.tensor([[-1.0 + 110.0, 2.0 + 110.0]]))  # type: ignore[arg-type]
    assert metrics.keys() == {"loss", "weights", "plus 110"}


def test_each_part_may_stand_alone(experience_of: Any) -> None:
    experience, log_probs = experience_of(torch.ones(1, 1), torch.tensor([[2.0]])), torch.tensor([[-1.0]])
    assert objective(loss) is loss
    assert objective(loss, halved)(experience, log_probs)[0].item() == 1.0
    assert objective(loss, None, plus(10.0))(experience, log_probs)[0].item() == -8.0
