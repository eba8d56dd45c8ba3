from __future__ import annotations

import math

import pytest

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.policy.kl_control.target_range import TargetRangeKL


@pytest.mark.parametrize(
    ("kl", "coef"), [(3.9, 0.1), (4.0, 0.2), (6.0, 0.2), (9.0, 0.2), (9.1, 0.4), (math.inf, 0.4), (0.0, 0.1), (-1.0, 0.1)]
)
def test_it_moves_only_outside_the_range(kl: float, coef: float) -> None:
    control = TargetRangeKL(coef=0.2, target=(4.0, 9.0), factor=2.0)
    control.update(kl, responses=64)
    assert control.value() == pytest.approx(coef, rel=1e-14)


@pytest.mark.parametrize(("kl", "end"), [(100.0, 5.0), (0.0, 0.01)])
def test_it_stays_within_its_limits_and_comes_back(kl: float, end: float) -> None:
    control = TargetRangeKL(coef=0.2, limits=(0.01, 5.0), factor=2.0)
    for _ in range(50):
        control.update(kl, responses=64)
    assert control.value() == end
    control.update(100.0 - kl, responses=64)
    assert control.value() == pytest.approx(end / 2 if kl else end * 2)
    assert TargetRangeKL(coef=99.0, limits=(0.01, 5.0)).value() == 5.0
    assert TargetRangeKL(coef=1e-9, limits=(0.01, 5.0)).value() == 0.01


def test_it_brings_a_policy_whose_kl_answers_to_it_into_the_range() -> None:
    control = TargetRangeKL(coef=5.0, target=(4.0, 9.0))
    for _ in range(100):
        control.update(kl=1.0 / control.value(), responses=64)
    assert 4.0 <= 1.0 / control.value() <= 9.0


def test_a_kl_that_is_not_a_number_is_refused_and_leaves_the_coefficient() -> None:
    control = TargetRangeKL(coef=1.0)
    with pytest.raises(UserError, match="not a number"):
        control.update(float("nan"), responses=64)
    assert control.value() == 1.0


def test_it_is_in_the_checkpoint() -> None:
    control, other = TargetRangeKL(coef=0.3), TargetRangeKL()
    control.update(100.0, responses=1)
    other.load_state_dict(control.state_dict())
    assert other.value() == control.value() != 0.3


@pytest.mark.parametrize("wrong", [{"target": [9.0, 4.0]}, {"target": [0.0, 4.0]}, {"factor": 1.0}, {"limits": [1.0, 1.0]}, {"coef": 0.0}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        registry.build({"_target_": f"{TargetRangeKL.__module__}.TargetRangeKL", **wrong})
