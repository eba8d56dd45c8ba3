"""Rank statistics of numpy columns: Spearman, Kendall, partial correlation, area under the ROC curve.

scipy's versions in float64; torchmetrics' lack their rules for constant columns and the interval of the area.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import kendalltau, rankdata

from rlhf_lightning.statistics.intervals import Interval

Array = np.ndarray


def rank_correlation(x: Array, y: Array) -> float | None:
    """Spearman's correlation of two [n] columns, with mean ranks for ties; None if either is constant."""
    if is_constant(x) or is_constant(y):
        return None
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def kendall_tau_b(scores: Array, target: Array) -> float | None:
    """Kendall's tau-b of two [n] columns.

    Source: M. G. Kendall, "The treatment of ties in ranking problems", 1945. None if the target is constant; 0 if the scores alone are.
    """
    if is_constant(target):
        return None
    return 0.0 if is_constant(scores) else float(kendalltau(scores, target).statistic)


def partial_rank_correlation(first: Array, second: Array, control: Array) -> float | None:
    """Spearman's correlation of two [n] columns, controlled for a third.

    It is the correlation of the residuals of their ranks after a linear regression on the third's ranks. None if a column is constant, or
    the third determines one of the others.
    """
    both, a, b = rank_correlation(first, second), rank_correlation(first, control), rank_correlation(second, control)
    if both is None or a is None or b is None:
        return None
    unexplained = (1 - a * a) * (1 - b * b)
    return max(-1.0, min(1.0, (both - a * b) / math.sqrt(unexplained))) if unexplained > 1e-12 else None


def area_under_curve(scores: Array, up: Array) -> Interval | None:
    """Area under the ROC curve of scores for thumbs up, with DeLong's 95 % interval cut to [0, 1].

    Own code: the interval (E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, 1988) needs the placements that AUROC functions hide.
    None without both classes.

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


def is_constant(column: Array) -> bool:
    """True for a column without two different values."""
    return len(column) < 2 or float(np.ptp(column)) == 0
