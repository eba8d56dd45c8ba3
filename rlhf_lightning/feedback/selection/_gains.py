"""Gains of single pairs: how much a reward model or its members doubt them."""

from __future__ import annotations

from torch import Tensor

from rlhf_lightning.feedback.acquisition import Candidates, posterior_of
from rlhf_lightning.interfaces import SelectionPool
from rlhf_lightning.statistics.laplace import member_information, mutual_information

WIDTH = 2.0
"""Standard deviations of the upper confidence bound."""


def deviations(pool: SelectionPool, candidates: Candidates) -> Tensor:
    """Standard deviation [P] of the score difference: of the members, else of the posterior."""
    if pool.members is not None:
        return (pool.members[:, candidates.first] - pool.members[:, candidates.second]).std(0)
    return posterior_of(pool).predict(candidates.differences).variances.clamp(min=0).sqrt()


def bald_gain(pool: SelectionPool, candidates: Candidates) -> Tensor:
    """Information [P] in nats of the answer about the weights, or about which member is right."""
    if pool.members is not None:
        return member_information(pool.members[:, candidates.first] - pool.members[:, candidates.second], error_rate=pool.error_rate)
    return mutual_information(candidates.scores, deviations(pool, candidates) ** 2, pool.error_rate)


def largest_gap(pool: SelectionPool, candidates: Candidates) -> Tensor:
    """Upper confidence bound [P] of the absolute score difference."""
    return candidates.scores.abs() + WIDTH * deviations(pool, candidates)
