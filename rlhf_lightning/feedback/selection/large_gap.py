"""The pair of each prompt that may differ most."""

from __future__ import annotations

from torch import Generator

from rlhf_lightning.feedback.acquisition import Candidates, turns
from rlhf_lightning.feedback.selection._gains import largest_gap
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import register


@register("feedback_selection", "large_gap")
def large_gap(pool: SelectionPool, budget: int, generator: Generator) -> list[Choice]:
    """The pair of each prompt with the largest upper confidence bound of the score difference.

    Clear preferences teach a policy by DPO more than near ties do (DeltaUCB, Melikidze et al. 2026, arXiv 2603.09692); a reward model
    learns less from them. No prompt gets a second pair before every prompt has one.
    """
    candidates = Candidates.of(pool)
    gaps = largest_gap(pool, candidates)
    order = (gaps / candidates.seconds).argsort(descending=True, stable=True)
    order = order[turns(candidates.pairs[order, 0]).argsort(stable=True)][:budget]
    return candidates.choices(order, gaps[order])
