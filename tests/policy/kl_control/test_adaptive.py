from __future__ import annotations

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.policy.kl_control.adaptive import AdaptiveKL


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (6.6, 1 + 0.1 * 0.0064), (600.0, 1 + 0.2 * 0.0064), (float("inf"), 1 + 0.2 * 0.0064), (0.0, 1 - 0.2 * 0.0064)],
)
def test_the_error_moves_the_coefficient_and_is_clipped(kl: float, factor: float) -> None:
    control = AdaptiveKL(coef=0.2, target=6.0, horizon=10_000)
    control.update(kl, responses=64)
    assert control.value() == pytest.approx(0.2 * factor, rel=1e-14)


def test_a_horizon_of_responses_far_too_high_is_about_a_fifth() -> None:
    control = AdaptiveKL(coef=1.0, target=1.0, horizon=10_000)
    for _ in range(100):
        control.update(kl=9.0, responses=100)
    assert control.value() == pytest.approx(2.718281828**0.2, rel=1e-3)


def test_a_batch_larger_than_the_horizon_never_turns_the_coefficient_negative() -> None:
    control = AdaptiveKL(coef=1.0, target=6.0, horizon=10)
    control.update(kl=0.0, responses=1000)
    assert control.value() == pytest.approx(0.8)


def test_a_kl_that_is_not_a_number_is_refused_and_leaves_the_coefficient() -> None:
    control = AdaptiveKL(coef=1.0)
    with pytest.raises(UserError, match="not a number"):
        control.update(float("nan"), responses=64)
    assert control.value() == 1.0


def test_it_holds_the_target_of_a_policy_whose_kl_answers_to_it() -> None:
    control = AdaptiveKL(coef=0.01, target=5.0, horizon=1000)
    for _ in range(2000):
        control.update(kl=1.0 / control.value(), responses=64)  # the weaker the penalty, the further the policy goes
    assert 1.0 / control.value() == pytest.approx(5.0, rel=1e-3)


def test_it_resumes_where_it_was_and_half_precision_does_not_round_it() -> None:
    control = AdaptiveKL(coef=0.05)
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), control).to(torch.bfloat16)
    control.update(kl=600.0, responses=64)
    assert control.value() == pytest.approx(0.05 * 1.00128, rel=1e-14)
    other = torch.nn.Sequential(torch.nn.Linear(1, 1), AdaptiveKL(coef=0.9)).to(torch.bfloat16)
    other.load_state_dict(module.state_dict())
    assert other[1].value() == control.value()


def test_settings_are_checked() -> None:
    path = f"{AdaptiveKL.__module__}.AdaptiveKL"
    assert registry.build({"_target_": path, "coef": 0.3}).value() == 0.3
    with pytest.raises(ConfigError, match="target"):
        registry.build({"_target_": path, "target": 0.0})
