"""GDPO by a loop over groups, and as TRL's own lines compute it."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.advantage.dr_grpo import dr_grpo
from rlhf_lightning.rollout.shaping.gdpo import gdpo, normalise_in_group

WEIGHTS = {"a": 1.0, "b": 0.25, "c": -2.0}


def components(rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    scales = {"a": 1.0, "b": 100.0, "c": 0.01}
    scores = {name: torch.randn(rows, generator=generator) * scale for name, scale in scales.items()}
    scores["b"][[1, 4]] = torch.nan
    scores["c"][4:8] = 0.1  # a group of equal scores
    return scores


def test_a_group_is_normalised_without_nan(scored_of):
    scores, group = torch.tensor([1.0, 3.0, math.nan, 7.0, 0.1, 0.1, math.nan]), torch.tensor([5, 2, 2, 2, 9, 9, 1])
    found = normalise_in_group(scores, group, 1e-4)
    high = 2.0 / (8.0**0.5 + 1e-4)
    torch.testing.assert_close(found, torch.tensor([0.0, -high, math.nan, high, 0.0, 0.0, math.nan]), equal_nan=True)


@pytest.mark.parametrize("normalise_batch", [True, False])
def test_advantages_are_trl_s(scored_of, normalise_batch):
    """The lines of GRPOTrainer for multi_objective_aggregation="normalize_then_sum", on groups of four."""
    parts = components(12)
    per_function = torch.stack(list(parts.values()), 1)
    grouped = per_function.view(-1, 4, 3)
    mean = torch.nanmean(grouped, dim=1, keepdim=True)
    count = (~grouped.isnan()).sum(1, keepdim=True)
    deviation = (torch.nansum((grouped - mean) ** 2, dim=1, keepdim=True) / (count - 1)).sqrt()
    normalised = ((grouped - mean) / (deviation + 1e-4)).view(-1, 3)
    rewards = (normalised * torch.tensor(list(WEIGHTS.values()))).nansum(1)
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4) if normalise_batch else rewards
    scored = scored_of(torch.ones(12, 2), group=torch.arange(12) // 4, scores=torch.ones(12), component_scores=parts, score_weights=WEIGHTS)
    experience = dr_grpo(gdpo(scored, normalise_batch=normalise_batch))
    torch.testing.assert_close(experience.advantages[:, 0], advantages, rtol=1e-4, atol=1e-5)
    assert experience.scores.tolist() == [1.0] * 12, "for the log"
