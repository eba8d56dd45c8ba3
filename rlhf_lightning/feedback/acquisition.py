"""Choose questions by an option of feedback_selection, with a uniform part.

Shapes: P pairs, N responses of the pool, D features.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.interfaces import Choice, FeedbackSelection, SelectionPool
from rlhf_lightning.statistics.laplace import Posterior


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


@dataclass(frozen=True)
class Candidates:
    """The pairs that may be chosen.

    Attributes:
        pairs: [P, 3] group, first and second response.
        first, second: [P] index of the responses among the pool's N.
        differences: [P, D] phi(first) - phi(second). scores: [P] differences of the scores.
        seconds: [P] expected, 1 without a model of them.
    """

    pairs: Tensor
    first: Tensor
    second: Tensor
    differences: Tensor
    scores: Tensor
    seconds: Tensor

    @classmethod
    def of(cls, pool: SelectionPool) -> Candidates:
        """All pairs of the pool. Raises ConfigError: it has no features or no scores."""
        if pool.features is None or pool.scores is None:
            raise ConfigError("feedback_selection needs a reward model: the pool has no features; feedback_selection=random needs none")
        pairs = pairs_of(pool)
        first, second = text_indices(pool, pairs)
        seconds = torch.ones(len(pairs), dtype=torch.float64)
        if pool.seconds is not None:
            texts = ((*pool.groups[group], i, j) for group, i, j in pairs.tolist())
            seconds = torch.tensor([pool.seconds(prompt, [of[i], of[j]]) for prompt, of, i, j in texts], dtype=torch.float64)
        differences = pool.features[first] - pool.features[second]
        return cls(pairs, first, second, differences, pool.scores[first] - pool.scores[second], seconds.clamp(min=1e-3))

    def __len__(self) -> int:
        return len(self.pairs)

    def best(self, gains: Tensor, budget: int) -> list[Choice]:
        """The pairs of the largest gain per second."""
        order = (gains / self.seconds).argsort(descending=True, stable=True)[:budget]
        return self.choices(order, gains[order])

    def choices(self, rows: Tensor, gains: Tensor) -> list[Choice]:
        """These pairs in order, with their gains."""
        return [Choice(group, (i, j), gain) for (group, i, j), gain in zip(self.pairs[rows].tolist(), gains.tolist(), strict=True)]


def posterior_of(pool: SelectionPool) -> Posterior:
    """The posterior of the weights after the pool's earlier comparisons."""
    if pool.features is None:
        raise ConfigError("feedback_selection needs features of the responses, and the pool has none")
    differences, scores = pool.past_differences, pool.past_scores
    if differences is None or scores is None:
        differences, scores = pool.features[:0], pool.features[:0, 0]
    return Posterior(differences, scores, pool.precision, pool.error_rate)


def pairs_of(pool: SelectionPool) -> Tensor:
    """[P, 3] group, first and second response of each pair that may be chosen, in order.

    Equal texts are no pair.
    """
    pairs = []
    for group, (_, responses) in enumerate(pool.groups):
        first, second = torch.triu_indices(len(responses), len(responses), 1)
        if len(set(responses)) < len(responses):
            number = {text: i for i, text in enumerate(dict.fromkeys(responses))}
            ids = torch.tensor([number[text] for text in responses])
            differ = ids[first] != ids[second]
            first, second = first[differ], second[differ]
        pairs.append(torch.stack([torch.full_like(first, group), first, second], 1))
    rows = torch.cat(pairs) if pairs else torch.zeros(0, 3, dtype=torch.long)
    if not pool.excluded:
        return rows
    return rows[torch.tensor([tuple(row) not in pool.excluded for row in rows.tolist()], dtype=torch.bool)]


def text_indices(pool: SelectionPool, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """[P] index of each pair's two responses among the pool's N."""
    sizes = torch.tensor([len(responses) for _, responses in pool.groups], dtype=torch.long)
    starts = sizes.cumsum(0) - sizes
    return starts[pairs[:, 0]] + pairs[:, 1], starts[pairs[:, 0]] + pairs[:, 2]


def turns(groups: Tensor) -> Tensor:
    """[P] number of earlier rows of the same group.

    An order by it visits every prompt before any has a second pair.
    """
    by_group = groups.argsort(stable=True)
    counts = groups.bincount(minlength=1)
    turn = torch.empty_like(groups)
    turn[by_group] = torch.arange(len(groups)) - (counts.cumsum(0) - counts)[groups[by_group]]
    return turn


def random_pairs(pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
    """Uniform pairs: one for each prompt, in random order, before any prompt gets a second one."""
    pairs = pairs_of(pool)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    return [Choice(group, (i, j)) for group, i, j in pairs[turns(pairs[:, 0]).argsort(stable=True)][:budget].tolist()]


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
