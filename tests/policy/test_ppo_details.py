"""Details of docs/ppo_details.md that are settings of the iteration itself and have no file of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rlhf_lightning.advantage.rloo import rloo
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from tests.policy.test_module import fingerprint, train


def nothing(rollout: Any) -> torch.Tensor:
    return torch.zeros(len(rollout))


def test_adam_has_the_epsilon_of_ppo_and_no_weight_decay():
    optimizer = train(updates=1).configure_optimizers()["optimizer"]
    assert {(group["eps"], group["weight_decay"]) for group in optimizer.param_groups} == {(1e-5, 0.0)}


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_the_gradient_of_all_parameters_together_is_clipped(critic):
    norms: list[float] = []

    def watch(optimizer: Any, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients])).item())

    handle = register_optimizer_step_pre_hook(watch)
    try:
        train(critic=critic, max_grad_norm=0.01)
    finally:
        handle.remove()
    assert len(norms) == 8
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_the_entropy_bonus_alone_raises_the_entropy_and_without_it_nothing_moves():
    settings: dict[str, Any] = {
        "advantage": rloo, "kl_control": FixedKL(coef=0.0), "self_checks": False, "learning_rate": 1e-2, "updates": 6,
    }  # fmt: skip
    still, spread, sharpened = (train(nothing, entropy_coef=coef, **settings) for coef in (0.0, 0.1, -0.1))
    assert fingerprint(still.policy) == fingerprint(still.reference)
    first, last = (spread.history[i]["policy/entropy_avg"] for i in (0, -1))
    assert last > first
    assert sharpened.history[-1]["policy/entropy_avg"] < first


@pytest.mark.parametrize("value_coef", [0.0, 0.1])
def test_the_critic_learns_by_its_coefficient(value_coef):
    head = train(value_coef=value_coef).policy.critic.head.weight
    assert bool((head == 0).all()) == (value_coef == 0.0)
