"""Greedy choice of a batch, in which each pair lowers the gain of pairs like it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_lightning.feedback.acquisition import Candidates, posterior_of
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.statistics.laplace import information

SHORTLIST = 4096
"""Candidates of the largest first gains that are considered, or four times the budget: gains only fall."""
Gain = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the candidates' rows, their variances and the information of their answers to their gains [P]."""


def greedy(pool: SelectionPool, candidates: Candidates, gain: Gain, budget: int, per_prompt: int | None = None) -> list[Choice]:
    """Choose the pair of the largest gain per second, and update all variances for its answer, until the budget is spent.

    Args:
        per_prompt: maximum of pairs of one prompt.
    """
    # The shortlist.
    posterior = posterior_of(pool)
    weight = information(candidates.scores, pool.error_rate)
    variances = posterior.variances(candidates.differences)
    everything = torch.arange(len(candidates))
    first = gain(everything, variances, weight) / candidates.seconds
    rows = first.argsort(descending=True, stable=True)
    if per_prompt is None:
        rows = rows[: max(SHORTLIST, 4 * budget)]
    differences, weight, variances = candidates.differences[rows], weight[rows], variances[rows]
    groups, seconds = candidates.pairs[rows, 0], candidates.seconds[rows]

    # Greedy steps; a chosen pair's gain per second becomes -inf.
    is_open, counts = torch.ones(len(rows), dtype=torch.bool), Counter[int]()
    chosen, gains = [], []
    for _ in range(min(budget, len(rows))):
        gain_now = gain(rows, variances, weight)
        best = int((gain_now / seconds).masked_fill(~is_open, -torch.inf).argmax())
        if not is_open[best]:
            break
        chosen.append(best)
        gains.append(float(gain_now[best]))
        is_open[best] = False
        counts[int(groups[best])] += 1
        if counts[int(groups[best])] == per_prompt:
            is_open &= groups != groups[best]
        posterior.observe(differences[best], float(weight[best]), differences, variances)
    return candidates.choices(rows[torch.tensor(chosen, dtype=torch.long)], torch.tensor(gains, dtype=torch.float64))
