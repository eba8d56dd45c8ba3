from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.correction.truncated import truncated_importance_weights

MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
RATIOS = torch.tensor([[1.5, 4.0, 7.0], [0.5, 2.0, 0.25]])


@pytest.fixture
def experience(experience_of: Any) -> Any:
    """The trainer's over the sampler's probabilities are RATIOS; outside the mask stands junk."""
    old = (RATIOS.log() - 3.0).requires_grad_()
    return experience_of(
        MASK, torch.zeros(2, 3), old_log_probs=old, sampled_log_probs=torch.tensor([[-3.0, -3.0, float("nan")], [-3.0] * 3])
    )


def test_a_token_counts_by_its_own_ratio_up_to_the_ceiling(experience: Any) -> None:
    weights, metrics = truncated_importance_weights(experience, clip_max=2.0)
    assert torch.allclose(weights, torch.tensor([[1.5, 2.0, 0.0], [0.5, 2.0, 0.25]]))
    assert not weights.requires_grad
    assert metrics["policy/correction_avg"] == pytest.approx(6.25 / 5)
    assert metrics["policy/correctionfrac_avg"] == pytest.approx(1 / 5), "only what was cut, not what is at the ceiling"
    assert metrics["policy/sampler_kl_avg"] == pytest.approx(-torch.tensor([1.5, 4.0, 0.5, 2.0, 0.25]).log().mean().item())


def test_a_row_counts_by_the_product_of_its_ratios(experience: Any) -> None:
    weights, metrics = truncated_importance_weights(experience, clip_max=5.0, level="sequence")
    assert torch.allclose(weights, torch.tensor([[5.0, 5.0, 0.0], [0.25, 0.25, 0.25]]))
    assert metrics["policy/correctionfrac_avg"] == pytest.approx(2 / 5)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_where_they_agree_every_token_counts_as_1(experience_of: Any, level: Any) -> None:
    log_probs = torch.randn(3, 4)
    same = experience_of(torch.ones(3, 4), torch.zeros(3, 4), old_log_probs=log_probs, sampled_log_probs=log_probs.clone())
    weights, metrics = truncated_importance_weights(same, level=level)
    assert torch.equal(weights, torch.ones(3, 4))
    assert metrics["policy/sampler_kl_avg"] == 0
    assert metrics["policy/correctionfrac_avg"] == 0


def test_weighted_by_sequence_a_mean_under_the_sampler_is_the_mean_under_the_trainer(experience_of: Any) -> None:
    """All texts of two tokens from a vocabulary of three, each as often as the sampler draws it."""
    torch.manual_seed(0)
    sampler, trainer = torch.randn(2, 2, 3, dtype=torch.float64).log_softmax(-1)
    first, second = torch.arange(9) // 3, torch.arange(9) % 3
    sampled, old = (torch.stack([log[0, first], log[1, second]], dim=1) for log in (sampler, trainer))
    of = experience_of(torch.ones(9, 2), torch.zeros(9, 2), old_log_probs=old, sampled_log_probs=sampled)
    observable = torch.randn(9, dtype=torch.float64)
    weights, _ = truncated_importance_weights(of, clip_max=1e6, level="sequence")
    assert torch.isclose((sampled.sum(1).exp() * weights[:, 0] * observable).sum(), (old.sum(1).exp() * observable).sum(), rtol=1e-12)


def test_an_impossible_token_stays_finite(experience_of: Any) -> None:
    far = torch.tensor([[float("-inf"), -1.0]])
    for old, sampled in ((far, torch.zeros(1, 2)), (torch.zeros(1, 2), far)):
        weights, metrics = truncated_importance_weights(
            experience_of(torch.ones(1, 2), torch.zeros(1, 2), old_log_probs=old, sampled_log_probs=sampled)
        )
        assert weights.isfinite().all()
        assert metrics["policy/sampler_kl_avg"].abs() > 100


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="clip_max"):
        registry.build({"_target_": f"{truncated_importance_weights.__module__}.truncated_importance_weights", "clip_max": 0.0})
