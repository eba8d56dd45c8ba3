"""Pairs about which the members of an ensemble disagree."""

from __future__ import annotations

from torch import Generator

from rlhf_lightning.feedback.acquisition import Candidates
from rlhf_lightning.feedback.selection._gains import deviations
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import register


@register("feedback_selection", "disagreement")
def disagreement(pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
    """Pairs of the largest standard deviation of the score difference over the ensemble's members.

    Without an ensemble, over the Laplace posterior of the last layer's weights.
    """
    candidates = Candidates.of(pool)
    return candidates.best(deviations(pool, candidates), budget)
