"""feedback_selection=diverse against the method by itself."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from rlhf_lightning.feedback.selection.bald import bald
from rlhf_lightning.feedback.selection.diverse import diverse
from rlhf_lightning.interfaces import SelectionPool


def redundant_pool() -> SelectionPool:
    """Five prompts whose pairs differ alike along one wide direction, and five along directions of their own."""
    features = torch.zeros(20, 6, dtype=torch.float64)
    for prompt in range(5):
        features[2 * prompt, 0] = 3.0 + 0.01 * prompt
        features[10 + 2 * prompt, 1 + prompt] = 2.0
    return SelectionPool(groups=[(f"p{i}", ["a", "b"]) for i in range(10)], features=features, scores=features[:, 0] * 0, precision=0.05)


@pytest.mark.parametrize("method", ["bald", "disagreement", "large_gap"])
def test_a_batch_covers_directions(method):
    pool = redundant_pool()
    chosen = [choice.group for choice in diverse(pool, 6, torch.Generator(), method=method)]
    assert sorted(chosen[1:]) == [5, 6, 7, 8, 9]
    assert chosen[0] in range(5)


def test_bald_by_itself_repeats_a_direction():
    assert sorted(choice.group for choice in bald(redundant_pool(), 5, torch.Generator())) == [0, 1, 2, 3, 4]


def test_a_duplicate_has_less_than_half_the_gain():
    scores = {choice.group: choice.score for choice in diverse(redundant_pool(), 10, torch.Generator())}
    assert max(scores[group] for group in range(4)) < 0.5 * scores[4]


def test_pairs_of_a_prompt_are_limited():
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pool = SelectionPool(groups=[(f"p{i}", list("abcde")) for i in range(4)], features=features, scores=features[:, 0])
    chosen = diverse(pool, 8, torch.Generator(), per_prompt=2)
    assert Counter(choice.group for choice in chosen) == dict.fromkeys(range(4), 2)
    assert len(diverse(pool, 30, torch.Generator(), per_prompt=2)) == 8
