from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.kl.loss import LossKL

POLICY = torch.tensor([0.3, -0.5, 1.1, 0.0], dtype=torch.float64)
REFERENCE = torch.tensor([-0.2, 0.4, 0.6, -1.0], dtype=torch.float64).log_softmax(0)
OLD = torch.tensor([0.9, -0.1, 0.2, 0.5], dtype=torch.float64).log_softmax(0)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum()


def slope(value: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, logits)
    return gradient


def mean_gradient(experience_of: Any, drawn_from: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    """Mean penalty and its mean gradient over all tokens of a vocabulary of four, each as often as `drawn_from` draws it."""
    logits = POLICY.clone().requires_grad_()
    log_probs = logits.log_softmax(0)[:, None]
    experience = experience_of(
        torch.ones(4, 1), torch.zeros(4, 1), old_log_probs=drawn_from[:, None], ref_log_probs=REFERENCE[:, None], kl_coef=1.0
    )
    mean = (drawn_from.exp() * LossKL(**settings).per_token_loss(experience, log_probs)[0][:, 0]).sum()
    return mean.detach(), slope(mean, logits)


@pytest.fixture
def exact() -> dict[str, Tensor]:
    logits = POLICY.clone().requires_grad_()
    policy = logits.log_softmax(0)
    return {
        "policy": policy.detach(),
        "KL": divergence(policy, REFERENCE).detach(),
        "gradient": slope(divergence(policy, REFERENCE), logits),
        "gradient of the reverse": slope(divergence(REFERENCE, logits.log_softmax(0)), logits),
    }


def test_on_tokens_of_the_policy_k2_has_the_gradient_of_the_kl_k1_none_and_k3_that_of_the_reverse(experience_of: Any, exact: Any) -> None:
    (k1, slope_1), (_, slope_2), (k3, slope_3) = (mean_gradient(experience_of, exact["policy"], estimator=k) for k in ("k1", "k2", "k3"))
    assert torch.allclose(k1, exact["KL"])
    assert torch.allclose(k3, exact["KL"])
    assert torch.allclose(slope_1, torch.zeros(4, dtype=torch.float64), atol=1e-15)
    assert torch.allclose(slope_2, exact["gradient"], rtol=1e-12)
    assert torch.allclose(slope_3, exact["gradient of the reverse"], rtol=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_weighted_it_has_value_and_gradient_of_the_kl_on_tokens_of_any_policy(experience_of: Any, exact: Any, estimator: Any) -> None:
    value, gradient = mean_gradient(experience_of, OLD, estimator=estimator, weighted=True)
    assert torch.allclose(value, exact["KL"], rtol=1e-12)
    assert torch.allclose(gradient, exact["gradient"], rtol=1e-12)
    assert not torch.allclose(mean_gradient(experience_of, OLD, estimator=estimator)[1], exact["gradient"], rtol=1e-2)


@pytest.mark.parametrize(("estimator", "estimate"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 1 + 0.5)])
def test_each_token_pays_its_estimate_times_the_coefficient(experience_of: Any, estimator: Any, estimate: float) -> None:
    log_probs = torch.tensor([[-1.0, -0.5, math.nan]], requires_grad=True)
    ref = torch.tensor([[-1.5, -0.5, 0.0]])
    experience = experience_of(torch.tensor([[1, 1, 0]]), torch.zeros(1, 3), old_log_probs=ref, ref_log_probs=ref, kl_coef=0.1)
    penalty, metrics = LossKL(estimator=estimator).per_token_loss(experience, log_probs)
    penalty.sum().backward()
    assert torch.allclose(penalty, torch.tensor([[0.1 * estimate, 0.0, 0.0]]))
    assert metrics["loss/kl_penalty_avg"] == pytest.approx(0.1 * estimate / 2)
    assert not metrics["loss/kl_penalty_avg"].requires_grad
    assert log_probs.grad is not None
    assert log_probs.grad[0, 2] == 0
    weighted, _ = LossKL(estimator=estimator, weighted=True).per_token_loss(experience, log_probs)
    assert torch.allclose(weighted, penalty * math.exp(0.5))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("far", [-300.0, -math.inf])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_token_that_became_impossible_stays_finite(experience_of: Any, estimator: Any, far: float, weighted: bool) -> None:
    log_probs = torch.tensor([[far, -19.0]], requires_grad=True)
    experience = experience_of(torch.ones(1, 2), torch.zeros(1, 2), kl_coef=0.5)
    penalty, _ = LossKL(estimator=estimator, weighted=weighted).per_token_loss(experience, log_probs)
    penalty.sum().backward()
    assert penalty.isfinite().all()
    assert log_probs.grad is not None
    assert log_probs.grad.isfinite().all()
    if estimator == "k3" and not weighted:
        assert penalty[0, 0].item() == pytest.approx(0.5 * (math.exp(20) - 1 - 20), rel=1e-6)
        assert log_probs.grad[0, 0] == 0
        assert log_probs.grad[0, 1] == pytest.approx(0.5 * (1 - math.exp(19)), rel=1e-6)


def test_an_unknown_estimator_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="estimator"):
        registry.build({"_target_": f"{LossKL.__module__}.LossKL", "estimator": "k4"})
