from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.correction.masked import masked_importance_weights

TARGET = f"{masked_importance_weights.__module__}.masked_importance_weights"


def of_ratios(experience_of: Any, ratios: torch.Tensor, mask: torch.Tensor) -> Any:
    return experience_of(mask, torch.zeros(ratios.shape), old_log_probs=ratios.log(), sampled_log_probs=torch.zeros(ratios.shape))


def test_a_token_outside_the_bounds_does_not_count_and_the_others_count_by_their_ratio(experience_of: Any) -> None:
    ratios, mask = torch.tensor([[0.5, 0.4, 1.0, 4.0, 4.5, 2.0]]), torch.tensor([[1, 1, 1, 1, 1, 0]])
    weights, metrics = masked_importance_weights(of_ratios(experience_of, ratios, mask), clip_min=0.5, clip_max=4.0)
    assert torch.allclose(weights, torch.tensor([[0.5, 0.0, 1.0, 4.0, 0.0, 0.0]])), "the bounds are inclusive"
    assert metrics["policy/correctionfrac_avg"] == pytest.approx(2 / 5)
    assert metrics["policy/correction_avg"] == pytest.approx(5.5 / 5)


def test_a_row_whose_geometric_mean_is_outside_the_bounds_does_not_count(experience_of: Any) -> None:
    ratios = torch.tensor([[4.0, 0.25, 9.0], [2.0, 2.0, 2.0], [0.5, 0.5, 0.5], [1.2, 9.0, 9.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]])
    weights, metrics = masked_importance_weights(of_ratios(experience_of, ratios, mask), clip_min=0.9, clip_max=1.1, level="sequence")
    assert torch.allclose(weights, torch.tensor([[4.0, 0.25, 0.0], [0.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3]))
    assert metrics["policy/correctionfrac_avg"] == pytest.approx(7 / 9)


@pytest.mark.parametrize(("clip_min", "clip_max"), [(1.0, 1.0), (0.0, 1.0), (0.5, 2.0)])
def test_bounds_around_1_are_accepted(clip_min: float, clip_max: float) -> None:
    assert registry.build({"_target_": TARGET, "clip_min": clip_min, "clip_max": clip_max})


@pytest.mark.parametrize(("clip_min", "clip_max", "key"), [(1.1, 2.0, "min"), (0.5, 0.9, "max"), (0.5, float("inf"), "max")])
def test_other_bounds_are_rejected(clip_min: float, clip_max: float, key: str) -> None:
    with pytest.raises(ConfigError, match=f"clip_{key}"):
        registry.build({"_target_": TARGET, "clip_min": clip_min, "clip_max": clip_max})
