"""Pairs whose answer tells most about the weights, each by itself."""

from __future__ import annotations

from torch import Generator

from rlhf_lightning.feedback.acquisition import Candidates
from rlhf_lightning.feedback.selection._gains import bald_gain
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import register


@register("feedback_selection", "bald")
def bald(pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
    """Pairs of the largest mutual information of answer and weights, ranked one by one.

    The information is the predictive entropy less the expected entropy, over an ensemble's members or the Laplace posterior of the last
    layer (Houlsby et al. 2011). A batch is redundant: its pairs resemble each other, and no better than random ones (Melo et al. 2024,
    arXiv 2406.10023); feedback_selection=diverse avoids that.
    """
    candidates = Candidates.of(pool)
    return candidates.best(bald_gain(pool, candidates), budget)
