"""How far two orders agree: Kendall's tau, partial correlation of ranks, area under the curve. Pure functions of numpy arrays."""

from __future__ import annotations

import math

import numpy as np

from rlhf_lightning.statistics.intervals import Interval

Array = np.ndarray


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's correlation: Pearson's of the ranks, equal values having their mean rank. None where one doesn't vary."""
    ranks = []
    for column in (x, y):
        _, place, times = np.unique(column, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(times) - (times + 1) / 2)[place])
    first, second = (rank - rank.mean() for rank in ranks)
    spread = math.sqrt(float((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / spread if spread else None


def kendall_tau_b(first: Array, second: Array) -> float | None:
    """Kendall's tau-b of two [n] columns: concordant less discordant pairs, over the root of the pairs that each column tells apart
    (M. G. Kendall, "The treatment of ties in ranking problems", 1945). Memory grows with n^2.

    None where the second column, what is to be found, tells nothing apart; 0 where the first alone does so.
    """
    upper = np.triu_indices(len(first), 1)
    a, b = (np.sign(column[:, None] - column[None, :])[upper] for column in (first, second))
    told_a, told_b = np.count_nonzero(a), np.count_nonzero(b)
    if not told_b:
        return None
    return float((a * b).sum()) / math.sqrt(told_a * told_b) if told_a else 0.0


def partial_rank_correlation(first: Array, second: Array, given: Array) -> float | None:
    """Spearman's correlation of two [n] columns with a third held fixed: that of the residuals of their ranks after linear regression on
    the third's ranks. None where a column doesn't vary, or the third says all about one of the others."""
    both, a, b = rank_correlation(first, second), rank_correlation(first, given), rank_correlation(second, given)
    if both is None or a is None or b is None:
        return None
    left = (1 - a * a) * (1 - b * b)
    return max(-1.0, min(1.0, (both - a * b) / math.sqrt(left))) if left > 1e-12 else None


def area_under_curve(scores: Array, up: Array) -> Interval | None:
    """How often a text with thumbs up scores above one with thumbs down, ties half; with the interval of E. R. DeLong, D. M. DeLong and
    D. L. Clarke-Pearson, 1988, cut to [0, 1]. None without both.

    Args:
        scores: [n]. up: [n] booleans.
    """
    above, below = np.sort(scores[up]), np.sort(scores[~up])
    if not len(above) or not len(below):
        return None
    wins = (np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")) / (2 * len(below))
    losses = 1 - (np.searchsorted(above, below, "left") + np.searchsorted(above, below, "right")) / (2 * len(above))
    area = float(wins.mean())
    if min(len(above), len(below)) < 2:
        return Interval(area, 0.0, 1.0, len(scores))
    reach = 1.959964 * math.sqrt(float(wins.var(ddof=1)) / len(above) + float(losses.var(ddof=1)) / len(below))
    return Interval(area, max(0.0, area - reach), min(1.0, area + reach), len(scores))
