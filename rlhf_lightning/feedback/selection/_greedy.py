"""Greedy choice of a batch, in which each pair lowers the gain of pairs like it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_lightning.feedback.acquisition import Candidates, posterior_of
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.statistics.laplace import Predictions, information

SHORTLIST = 4096
"""Candidates of the largest first gains that are considered, or three times the budget: gains fall as the batch grows."""
Gain = Callable[[Tensor, Predictions, Tensor], Tensor]
"""From the candidates' rows [R], their predictions and the information of their answers [R] to their gains [R]."""


def greedy(
    pool: SelectionPool, candidates: Candidates, gain: Gain, budget: int, *, per_prompt: int | None = None, is_targeted: bool = False
) -> list[Choice]:
    """Choose the pair of the largest gain per second, update all predictions for its answer, and repeat.

    Args:
        per_prompt: maximum of pairs of one prompt.
        is_targeted: the predictions have relevances to all candidates.
    """
    # The shortlist.
    posterior = posterior_of(pool)
    weight = information(candidates.scores, pool.error_rate)
    differences = candidates.differences
    target = differences.T @ (differences * weight[:, None]) / max(1, len(differences)) if is_targeted else None
    everything = torch.arange(len(candidates))
    rows = (gain(everything, posterior.predict(differences, target), weight) / candidates.seconds).argsort(descending=True, stable=True)
    if per_prompt is None:
        rows = rows[: max(SHORTLIST, 3 * budget)]
    predictions = posterior.predict(differences[rows], target)
    weight, groups, seconds = weight[rows], candidates.pairs[rows, 0], candidates.seconds[rows]

    # Greedy steps; a pair that can't be chosen any more has the gain -inf.
    is_open, counts = torch.ones(len(rows), dtype=torch.bool), Counter[int]()
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < budget and bool(is_open.any()):
        gain_now = gain(rows, predictions, weight)
        best = int((gain_now / seconds).masked_fill(~is_open, -torch.inf).argmax())
        chosen.append(best)
        gains.append(float(gain_now[best]))
        is_open[best] = False
        counts[int(groups[best])] += 1
        if counts[int(groups[best])] == per_prompt:
            is_open &= groups != groups[best]
        posterior.observe(predictions.differences[best], float(weight[best]), predictions)
    return candidates.choices(rows[torch.tensor(chosen, dtype=torch.long)], torch.tensor(gains, dtype=torch.float64))
