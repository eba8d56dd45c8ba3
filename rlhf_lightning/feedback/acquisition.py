"""Choose questions by an option of feedback_selection, with a uniform part; pairs of a pool."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Generator, Tensor

from rlhf_lightning.interfaces import Choice, FeedbackSelection, SelectionPool


def choose_questions(
    name: str, selection: FeedbackSelection, pool: SelectionPool, budget: int, generator: Generator, *, share_random: float
) -> list[Choice]:
    """Choose questions by the option `name`, and a part of them uniformly.

    Only the uniform part measures a model without bias. It is drawn first from all pairs; the rest doesn't choose its pairs again, and
    counts them as answered. A pool without a reward model (`features` is None) has only the uniform part; `random` has no other.

    Args:
        share_random: fraction of the budget, rounded up.

    Returns:
        the uniform part, then the others, best first, each with the option that chose it.
    """
    if name == "random":
        return selection(pool, budget, generator)
    uniform = random_pairs(pool, budget if pool.features is None else math.ceil(share_random * budget), generator)
    if pool.features is None:
        return uniform
    choices = selection(with_answered(pool, uniform), budget - len(uniform), generator)
    return uniform + [dataclasses.replace(choice, selected_by=name) for choice in choices]


def pairs_of(pool: SelectionPool) -> Tensor:
    """[P, 3] group, first and second response of each pair that may be chosen, in order."""
    pairs = []
    for group, (_, responses) in enumerate(pool.groups):
        first, second = torch.triu_indices(len(responses), len(responses), 1)
        pairs.append(torch.stack([torch.full_like(first, group), first, second], 1))
    rows = torch.cat(pairs) if pairs else torch.zeros(0, 3, dtype=torch.long)
    if not pool.excluded:
        return rows
    return rows[torch.tensor([tuple(row) not in pool.excluded for row in rows.tolist()], dtype=torch.bool)]


def text_indices(pool: SelectionPool, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """[P] index of each pair's two responses among the pool's N."""
    sizes = torch.tensor([len(responses) for _, responses in pool.groups])
    starts = sizes.cumsum(0) - sizes
    return starts[pairs[:, 0]] + pairs[:, 1], starts[pairs[:, 0]] + pairs[:, 2]


def random_pairs(pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
    """Uniform pairs: one for each prompt, in random order, before any prompt gets a second one."""
    pairs = pairs_of(pool)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    by_group = pairs[:, 0].argsort(stable=True)
    counts = pairs[:, 0].bincount(minlength=1)
    turn = torch.empty(len(pairs), dtype=torch.long)
    turn[by_group] = torch.arange(len(pairs)) - (counts.cumsum(0) - counts)[pairs[by_group, 0]]
    return [Choice(group, (i, j)) for group, i, j in pairs[turn.argsort(stable=True)][:budget].tolist()]


def with_answered(pool: SelectionPool, choices: list[Choice]) -> SelectionPool:
    """The pool after these pairs: they are excluded, and inform the model like earlier comparisons."""
    excluded = pool.excluded | {(choice.group, choice.responses[0], choice.responses[1]) for choice in choices}
    if pool.features is None or not choices:
        return dataclasses.replace(pool, excluded=excluded)
    first, second = text_indices(pool, torch.tensor([(choice.group, *choice.responses) for choice in choices]))
    differences = pool.features[first] - pool.features[second]
    scores = torch.zeros(len(choices), dtype=torch.float64) if pool.scores is None else pool.scores[first] - pool.scores[second]
    if pool.past_differences is not None and pool.past_scores is not None:
        differences, scores = torch.cat([pool.past_differences, differences]), torch.cat([pool.past_scores, scores])
    return dataclasses.replace(pool, excluded=excluded, past_differences=differences, past_scores=scores)
