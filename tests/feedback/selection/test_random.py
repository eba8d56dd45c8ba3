"""feedback_selection=random."""

from __future__ import annotations

import torch

from rlhf_lightning.feedback.selection.random import random
from rlhf_lightning.interfaces import Choice, SelectionPool

POOL = SelectionPool(groups=[("p", ["a", "b", "c"]), ("q", ["d"]), ("r", ["e", "f"])])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_prompt_with_all_responses_in_order():
    assert random(POOL, 3, generator()) == [Choice(0, (0, 1, 2)), Choice(1, (0,)), Choice(2, (0, 1))]


def test_a_smaller_budget_takes_random_prompts():
    choices = {tuple(choice.group for choice in random(POOL, 2, generator(seed))) for seed in range(30)}
    assert choices == {(0, 1), (0, 2), (1, 2)}


def test_pairs_visit_every_prompt_before_any_twice():
    chosen = random(POOL, 10, generator(), pairs=True)
    assert sorted(choice.group for choice in chosen[:2]) == [0, 2]
    assert sorted((choice.group, choice.responses) for choice in chosen) == [(0, (0, 1)), (0, (0, 2)), (0, (1, 2)), (2, (0, 1))]
