"""feedback_selection=thompson."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from rlhf_lightning.feedback.selection.thompson import thompson
from rlhf_lightning.interfaces import SelectionPool

BEST = [0] * 5 + [1] * 3 + [2] * 2
"""The favourite of each of ten members among four responses."""


def favourites_pool(prompts: int = 1) -> SelectionPool:
    members = torch.nn.functional.one_hot(torch.tensor(BEST), 4).double().repeat(1, prompts)
    groups = [(f"p{i}", list("abcd")) for i in range(prompts)]
    return SelectionPool(
        groups=groups, features=torch.eye(4, dtype=torch.float64).repeat(prompts, 1), scores=members.mean(0), members=members
    )


def test_pairs_are_drawn_as_by_two_members():
    prompts = 2000
    counts = Counter(choice.responses for choice in thompson(favourites_pool(prompts), prompts, torch.Generator().manual_seed(0)))
    share = {0: 0.5, 1: 0.3, 2: 0.2}
    for pair in ((0, 1), (0, 2), (1, 2)):
        a, b = (share[i] for i in pair)
        expected = a * b / (1 - a) + a * b / (1 - b)
        assert counts[pair] / prompts == pytest.approx(expected, abs=4 * math.sqrt(expected / prompts))
    assert sum(counts.values()) == sum(counts[pair] for pair in ((0, 1), (0, 2), (1, 2))) == prompts


def test_a_sure_model_asks_about_its_best_response_last():
    pool = favourites_pool()
    chosen = thompson(pool, 6, torch.Generator().manual_seed(0))
    assert {choice.responses for choice in chosen[:3]} == {(0, 1), (0, 2), (1, 2)}
    assert [choice.score for choice in chosen[3:]] == [0, 0, 0]


def test_without_an_ensemble_members_are_posterior_samples():
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pool = SelectionPool(groups=[(f"p{i}", list("abcd")) for i in range(10)], features=features, scores=features[:, 0])
    chosen = thompson(pool, 10, torch.Generator().manual_seed(1))
    assert sorted(choice.group for choice in chosen) == list(range(10))
    assert all(choice.score > 0 for choice in chosen)
