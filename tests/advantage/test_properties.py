"""What holds for every estimator."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.advantage import (  # noqa: F401  (each registers itself)
    dr_grpo,
    gae,
    grpo,
    opo,
    reinforce,
    reinforce_pp,
    reinforce_pp_baseline,
    remax,
    rloo,
)
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import ScoredRollout

NAMES = ["dr_grpo", "gae", "grpo", "opo", "reinforce", "reinforce_pp", "reinforce_pp_baseline", "remax", "rloo"]
pytestmark = pytest.mark.parametrize("name", NAMES)


def built(name: str, **settings: Any) -> Any:
    component = next(c for c in registry.components("advantage") if c.name == name)
    estimator = registry.build({"_target_": component.path, **settings})

    def with_greedy_scores(scored: ScoredRollout) -> Any:
        scored.baseline_scores = scored.group.to(scored.rewards.dtype)  # any number that follows its row
        return estimator(scored)

    return with_greedy_scores if name == "remax" else estimator


@pytest.fixture
def scored(scored_of: Any) -> ScoredRollout:
    torch.manual_seed(1)
    mask = (torch.arange(6) < torch.tensor([6, 1, 4, 0, 3, 2, 5, 6])[:, None]).long()
    rewards, values = torch.randn(2, 8, 6, dtype=torch.float64)
    scored: ScoredRollout = scored_of(mask, rewards=rewards, values=values, group=torch.tensor([2, 5, 2, 2, 5, 9, 5, 2]))
    return scored


def test_the_order_of_the_rows_does_not_matter(name: str, scored: ScoredRollout) -> None:
    order = torch.randperm(8)
    assert torch.allclose(built(name)(scored.select(order)).advantages, built(name)(scored).advantages[order], rtol=0, atol=1e-12)


def test_nothing_outside_the_mask_and_nothing_of_the_record_changes(name: str, scored: ScoredRollout) -> None:
    before = scored.rewards.clone()
    made = built(name)(scored)
    assert torch.equal(made.advantages[~scored.response_mask.bool()], torch.zeros(21, dtype=torch.float64))
    assert torch.equal(scored.rewards, before)
    assert made.rewards is scored.rewards
    assert made.prompts == scored.prompts


def test_a_batch_without_tokens_gives_0(name: str, scored_of: Any) -> None:
    for mask in (torch.zeros(3, 4), torch.zeros(3, 0)):
        made = built(name)(scored_of(mask, rewards=torch.zeros(mask.shape), values=torch.zeros(mask.shape)))
        assert torch.equal(made.advantages, torch.zeros(mask.shape))


def test_a_score_that_is_not_a_number_is_refused(name: str, scored_of: Any) -> None:
    scores = torch.tensor([0.0, float("nan"), 1.0])
    scored = scored_of(torch.ones(3, 2), scores=scores, group=torch.tensor([0, 1, 0]), values=torch.zeros(3, 2))
    with pytest.raises(DataError, match=r"not finite|not numbers"):
        built(name)(scored)


def test_settings_are_checked(name: str) -> None:
    wrong = {"gae": {"lam": 1.5}, "grpo": {"eps": 0.0}, "reinforce": {"gamma": -0.1}, "reinforce_pp": {"gamma": 2}}
    with pytest.raises(ConfigError):
        built(name, **wrong.get(name, {"gama": 1}))
