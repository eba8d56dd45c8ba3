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
from rlhf_lightning.statistics.laplace import Predictions

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

    A pair's gain is the method's times r / v: v is the variance of its score difference before the batch, and r the mean squared
    covariance with all pairs of the pool after the batch so far, by the information of their answers. So a pair comes first if the method
    doubts it, its direction of the features is new, and its answer tells about many others. Doubt times density: B. Settles and
    M. Craven, "An analysis of active learning strategies for sequence labeling tasks", 2008; here both are of the Laplace posterior.

    Args:
        method: the gain of a pair by itself.
        per_prompt: maximum of pairs of one prompt in a batch; null sets none.
    """
    candidates = Candidates.of(pool)
    gains = GAINS[method](pool, candidates) / posterior_of(pool).predict(candidates.differences).variances.clamp(min=1e-300)

    def doubt_times_relevance(rows: Tensor, predictions: Predictions, weight: Tensor) -> Tensor:
        assert predictions.relevances is not None
        return gains[rows] * predictions.relevances

    return greedy(pool, candidates, doubt_times_relevance, budget, per_prompt=per_prompt, is_targeted=True)
