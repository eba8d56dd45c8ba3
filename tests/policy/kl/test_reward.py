from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.policy.kl.reward import RewardKL


@pytest.mark.parametrize(("estimator", "estimate"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 1 + 0.5)])
def test_each_token_pays_its_estimate(scored_of: Any, estimator: Any, estimate: float) -> None:
    scored = scored_of(
        torch.tensor([[1, 1, 0]]),
        scores=torch.tensor([2.0]),
        old_log_probs=torch.tensor([[-1.0, -0.5, float("nan")]]),
        ref_log_probs=torch.tensor([[-1.5, -0.5, 0.0]]),
        kl_coef=0.1,
    )
    shaped = RewardKL(estimator=estimator).shape_rewards(scored)
    assert torch.allclose(shaped.rewards, torch.tensor([[-0.1 * estimate, 2.0, 0.0]]))
    assert torch.equal(scored.rewards, torch.tensor([[0.0, 2.0, 0.0]]))
    assert shaped.scores is scored.scores


def test_the_same_policy_pays_exactly_nothing(scored_of: Any) -> None:
    log_probs = torch.randn(3, 4)
    scored = scored_of(torch.ones(3, 4), scores=torch.randn(3), old_log_probs=log_probs, ref_log_probs=log_probs.clone(), kl_coef=1.0)
    for estimator in ("k1", "k2", "k3"):
        assert torch.equal(RewardKL(estimator=estimator).shape_rewards(scored).rewards, scored.rewards)


def test_an_unknown_estimator_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="estimator"):
        registry.build({"_target_": f"{RewardKL.__module__}.RewardKL", "estimator": "k4"})
