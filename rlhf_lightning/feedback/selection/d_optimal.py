"""Batches that determine the last layer's weights best."""

from __future__ import annotations

from torch import Generator, Tensor

from rlhf_lightning.feedback.acquisition import Candidates
from rlhf_lightning.feedback.selection._greedy import greedy
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import register
from rlhf_lightning.statistics.laplace import Predictions


@register("feedback_selection", "d_optimal")
def d_optimal(pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
    """Batches of the largest determinant of the Fisher information of the last layer, greedily.

    The gain of a pair is log(1 + p (1 - p) d^T H^-1 d), where d is the difference of the features and H the information of earlier
    comparisons, of this batch's and of the prior (Shen et al. 2025, arXiv 2502.04354).
    """

    def log_determinant(rows: Tensor, predictions: Predictions, weight: Tensor) -> Tensor:
        return (weight * predictions.variances).log1p()

    return greedy(pool, Candidates.of(pool), log_determinant, budget)
