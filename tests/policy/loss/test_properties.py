"""What holds for every policy loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.loss import cispo, dual_clip, gspo, ppo_clip, reinforce, sapo  # noqa: F401  (each registers itself)
from rlhf_lightning.policy.reduction.sequence_mean import sequence_mean
from rlhf_lightning.policy.reduction.token_mean import token_mean

NAMES = ["ppo_clip", "dual_clip", "gspo", "cispo", "reinforce", "sapo"]
MASK = (torch.arange(6) < torch.tensor([6, 1, 4, 0, 3])[:, None]).long()
pytestmark = pytest.mark.parametrize("name", NAMES)


def built(name: str, **settings: Any) -> Any:
    component = next(c for c in registry.components("policy_loss") if c.name == name)
    return registry.build({"_target_": component.path, **settings})


@pytest.fixture
def batch(experience_of: Any) -> tuple[Any, Tensor]:
    """An experience and log-probs near and far from the old ones, in float64; advantages differ by row and keep off 0."""
    torch.manual_seed(3)
    old = -torch.rand(5, 6, dtype=torch.float64) - 1
    advantages = torch.tensor([1.3, -0.7, -1.1, 2.0, 0.4], dtype=torch.float64)[:, None].expand(5, 6)
    return experience_of(MASK, advantages, old_log_probs=old), old + torch.randn(5, 6, dtype=torch.float64) * 0.7


def test_the_gradient_is_the_finite_difference(name: str, batch: Any) -> None:
    experience, log_probs = batch
    settings = {"gspo": {"clip_ratio": 0.2, "clip_ratio_high": 0.2}}.get(name, {})
    reduction = sequence_mean if name == "gspo" else token_mean
    if name == "cispo":  # its weight stops the gradient: keep every ratio where the weight is constant
        log_probs = experience.old_log_probs + torch.where(log_probs > experience.old_log_probs, 0.5, -0.5)
        settings = {"clip_ratio": 0.1, "clip_ratio_high": 0.1}
    ratio = (log_probs - experience.old_log_probs).exp()
    assert all(float((ratio[MASK.bool()] - kink).abs().min()) > 1e-3 for kink in (0.8, 1.2, 3.0))

    def loss(x: Tensor) -> Tensor:
        return reduction(built(name, **settings)(experience, x)[0], MASK)

    assert torch.autograd.gradcheck(loss, log_probs.clone().requires_grad_(), eps=1e-6, atol=1e-9, rtol=1e-6)


def test_at_the_old_policy_nothing_is_clipped_and_the_gradient_is_the_policy_gradient(name: str, batch: Any) -> None:
    experience, _ = batch
    log_probs = experience.old_log_probs.clone().requires_grad_()
    per_token, metrics = built(name)(experience, log_probs)
    per_token.sum().backward()
    assert torch.allclose(log_probs.grad, -experience.advantages * MASK, rtol=1e-12)
    assert metrics["policy/clipfrac_avg"] == 0
    assert metrics["policy/approxkl_avg"] == 0
    assert metrics["val/ratio"] == 1
    assert metrics["val/ratio_var"] == 0


def test_the_order_of_the_rows_does_not_matter(name: str, batch: Any) -> None:
    experience, log_probs = batch
    order = torch.tensor([3, 0, 4, 2, 1])
    moved, _ = built(name)(experience.select(order), log_probs[order])
    assert torch.allclose(moved, built(name)(experience, log_probs)[0][order], rtol=0, atol=1e-14)


def test_what_stands_outside_the_mask_changes_nothing(name: str, batch: Any) -> None:
    experience, log_probs = batch
    clean = log_probs.clone().requires_grad_()
    junk = torch.where(MASK.bool(), log_probs, torch.tensor(float("nan"))).requires_grad_()
    results = []
    for x in (clean, junk):
        per_token, metrics = built(name)(experience, x)
        token_mean(per_token, MASK).backward()
        results.append([x.grad, *metrics.values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert torch.equal(clean.grad[~MASK.bool()], torch.zeros(16, dtype=torch.float64))  # type: ignore[index]


@pytest.mark.parametrize("reduction", [token_mean, sequence_mean])
def test_a_batch_without_tokens_is_0_with_zero_gradient(name: str, reduction: Any, experience_of: Any) -> None:
    log_probs = torch.full((2, 3), -1.0, requires_grad=True)
    per_token, metrics = built(name)(experience_of(torch.zeros(2, 3), torch.ones(2, 3)), log_probs)
    loss = reduction(per_token, torch.zeros(2, 3))
    loss.backward()
    assert loss == 0
    assert torch.equal(log_probs.grad, torch.zeros(2, 3))  # type: ignore[arg-type]
    assert all(value == 0 for value in metrics.values())


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("jump", [100.0, -100.0, float("-inf")])
def test_an_extreme_log_ratio_stays_finite(name: str, jump: float, advantage: float, experience_of: Any) -> None:
    log_probs = torch.tensor([[-101.0 + jump, -1.0]], requires_grad=True)
    experience = experience_of(torch.ones(1, 2), torch.full((1, 2), advantage), old_log_probs=torch.tensor([[-101.0, -1.0]]))
    per_token, metrics = built(name)(experience, log_probs)
    token_mean(per_token, torch.ones(1, 2)).backward()
    assert per_token.isfinite().all()
    assert log_probs.grad is not None
    assert log_probs.grad.isfinite().all()
    assert all(value.isfinite() for value in metrics.values())
    assert metrics["policy/approxkl_avg"] >= 100.0**2 / 4 * 0.99  # and it shows


def test_settings_are_checked(name: str) -> None:
    wrong = {"dual_clip": {"clip_ratio_c": 1.0}, "cispo": {"clip_ratio": 1.5}, "reinforce": {"clip_ratio": 0.2}}
    with pytest.raises(ConfigError):
        built(name, **wrong.get(name, {"clip_ratio": 0.0}))
