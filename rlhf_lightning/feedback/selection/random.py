"""Questions drawn at random."""

from __future__ import annotations

import torch
from torch import Generator

from rlhf_lightning.feedback.acquisition import random_pairs
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import register


@register("feedback_selection", "random")
def random(pool: SelectionPool, budget: int, generator: Generator, *, pairs: bool = False) -> list[Choice]:
    """Random prompts with all of their responses; every prompt if the budget allows it.

    Args:
        pairs: ask about a random pair of a prompt's responses in place of all of them.
    """
    if pairs:
        return random_pairs(pool, budget, generator)
    groups = list(range(len(pool.groups)))
    if budget < len(groups):
        groups = sorted(torch.randperm(len(groups), generator=generator)[:budget].tolist())
    return [Choice(group, tuple(range(len(pool.groups[group][1])))) for group in groups]
