"""feedback_selection=d_optimal."""

from __future__ import annotations

import math

import torch

from rlhf_lightning.feedback.acquisition import Candidates, pairs_of
from rlhf_lightning.feedback.selection.d_optimal import d_optimal
from rlhf_lightning.interfaces import SelectionPool
from rlhf_lightning.statistics.laplace import information


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_pool() -> SelectionPool:
    """Two prompts of four responses: 12 pairs."""
    features, weight, past = normal(8, 5), normal(5, seed=1), normal(4, 5, seed=2)
    groups = [(f"p{i}", [f"r{i}.{j}" for j in range(4)]) for i in range(2)]
    return SelectionPool(
        groups=groups,
        features=features,
        scores=features @ weight,
        past_differences=past,
        past_scores=past @ weight,
        precision=0.2,
        error_rate=0.1,
    )


def test_greedy_equals_brute_force():
    """Each choice has the largest determinant of all that extend the earlier ones, computed in full."""
    pool = small_pool()
    candidates = Candidates.of(pool)
    assert len(candidates) == 12
    weight = information(candidates.scores, 0.1)
    matrix = 0.2 * torch.eye(5, dtype=torch.float64)
    matrix += pool.past_differences.T @ (information(pool.past_scores, 0.1)[:, None] * pool.past_differences)
    chosen = d_optimal(pool, 12, torch.Generator())
    rows = [pairs_of(pool).tolist().index([choice.group, *choice.responses]) for choice in chosen]
    remaining = set(range(12))
    for row, choice in zip(rows, chosen, strict=True):
        extended = {i: matrix + weight[i] * torch.outer(candidates.differences[i], candidates.differences[i]) for i in remaining}
        gains = {i: float(torch.logdet(extended[i]) - torch.logdet(matrix)) for i in remaining}
        assert row == max(gains, key=gains.get)
        assert math.isclose(choice.score, gains[row], rel_tol=1e-8)
        matrix = extended[row]
        remaining.remove(row)


def test_a_duplicate_has_less_than_half_the_gain():
    """Of two prompts with the same responses the second one is asked last."""
    features = normal(3, 5).repeat(2, 1)
    features[[2, 5]] *= 0.3
    pool = SelectionPool(
        groups=[("p", ["a", "b", "c"]), ("q", ["a", "b", "c"])], features=features, scores=features[:, 0] * 0, precision=0.05
    )
    chosen = d_optimal(pool, 6, torch.Generator())
    scores = {(choice.group, choice.responses): choice.score for choice in chosen}
    first = chosen[0]
    assert scores[1 - first.group, first.responses] < 0.5 * first.score
