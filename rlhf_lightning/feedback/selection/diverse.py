"""A method whose batch avoids pairs that resemble each other."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt
from torch import Generator, Tensor

from rlhf_lightning.feedback.acquisition import Candidates, posterior_of
from rlhf_lightning.feedback.selection._gains import bald_gain, deviations, largest_gap
from rlhf_lightning.feedback.selection._greedy import greedy
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import register

GAINS = {"bald": bald_gain, "disagreement": deviations, "large_gap": largest_gap}


@register("feedback_selection", "diverse")
def diverse(
    pool: SelectionPool,
    budget: int,
    generator: Generator,
    *,
    method: Literal["bald", "disagreement", "large_gap"] = "bald",
    per_prompt: PositiveInt | None = None,
) -> list[Choice]:
    """Batches by another method, in which each choice lowers the gain of pairs like it.

    A pair's gain is the method's times the share of its posterior variance that the batch so far leaves, so that a pair along a new
    direction of the features comes before a second one along the same.

    Args:
        method: the gain of a pair by itself.
        per_prompt: maximum of pairs of one prompt in a batch; null sets none.
    """
    candidates = Candidates.of(pool)
    gains = GAINS[method](pool, candidates)
    alone = posterior_of(pool).variances(candidates.differences).clamp(min=1e-300)

    def reduced(rows: Tensor, variances: Tensor, weight: Tensor) -> Tensor:
        return gains[rows] * (variances / alone[rows])

    return greedy(pool, candidates, reduced, budget, per_prompt)
