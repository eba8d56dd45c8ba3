from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.rollout.shaping.clip_score import clip_score
from rlhf_lightning.rollout.shaping.missing_eos import missing_eos


def test_scores_and_rewards_are_held_however_large(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 0]])
    scored = scored_of(mask, scores=torch.tensor([1e30, float("-inf"), 0.25, 9.0]))
    shaped = clip_score(scored, limits=(-1.0, 5.0))
    assert torch.equal(shaped.scores, torch.tensor([5.0, -1.0, 0.25, 5.0]))
    assert torch.equal(shaped.rewards, torch.tensor([[0.0, 5.0], [-1.0, 0.0], [0.0, 0.25], [0.0, 0.0]]))
    assert scored.scores[0] == 1e30


@pytest.mark.parametrize("penalty", [1.0, 1e-6])
def test_after_another_shaping_it_is_refused(scored_of: Any, penalty: float) -> None:
    shaped = missing_eos(scored_of(torch.ones(1, 2), scores=torch.ones(1), has_eos=torch.tensor([False])), penalty=penalty)
    with pytest.raises(ConfigError, match="must be the first shaping"):
        clip_score(shaped)


def test_a_score_that_is_not_a_number_is_left_for_the_estimator_to_refuse(scored_of: Any) -> None:
    shaped = clip_score(scored_of(torch.ones(2, 1), scores=torch.tensor([float("nan"), 9.0])))
    assert shaped.rewards[0].isnan()
    assert shaped.rewards[1] == 5.0


def test_limits_are_checked_before_the_run(scored_of: Any) -> None:
    path = f"{clip_score.__module__}.clip_score"
    shape = registry.build({"_target_": path, "limits": [-2.0, 2.0]})
    assert shape(scored_of(torch.ones(1, 1), scores=torch.tensor([3.0]))).scores == 2.0
    for wrong in ([2.0, -2.0], [2.0, 2.0], [1.0], [0.0, float("inf")]):
        with pytest.raises(ConfigError, match="limits"):
            registry.build({"_target_": path, "limits": wrong})
