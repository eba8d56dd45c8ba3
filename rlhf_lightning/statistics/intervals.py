"""Confidence intervals of means, proportions, paired differences, clustered values and correlations.

Own code except for scipy's quantiles: neither scipy nor torchmetrics has intervals of clustered values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean of n items and the interval that covers the true mean in `level` of all repetitions.

    One item says nothing about the spread: its interval is (-inf, inf). Items that are not finite give a mean and bounds of NaN.
    """

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values.

    Raises:
        ValueError: no values, or a level outside (0, 1).
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    if not array.size:
        raise ValueError("an interval needs at least one value")
    quantile = student_t_quantile(level, max(array.size - 1, 1))
    if not np.isfinite(array).all():
        return Interval(math.nan, math.nan, math.nan, array.size, level)
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, -math.inf, math.inf, 1, level)
    reach = quantile * float(array.std(ddof=1)) / math.sqrt(array.size)
    return Interval(mean, mean - reach, mean + reach, array.size, level)


def paired_interval(before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean change of the same items.

    Narrower than the intervals of the two means where items differ a lot.

    Raises:
        ValueError: the two don't have the same number of items, or as `mean_interval`.
    """
    first, second = np.asarray(before, dtype=np.float64).ravel(), np.asarray(after, dtype=np.float64).ravel()
    if first.size != second.size:
        raise ValueError(f"paired values come in pairs, not {first.size} before and {second.size} after")
    return mean_interval(second - first, level)


def proportion_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927).

    It stays in [0, 1] and is valid for few items too.

    Raises:
        ValueError: n < 1, successes outside 0 to n, or a level outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs n >= 1 and 0 <= successes <= n, not {successes} of {n}")
    return _wilson(successes / n, n, n, level)


def clustered_mean_interval(values: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of values correlated within clusters (judgements of one prompt).

    The variance is that of the clusters' summed deviations (the sandwich of K.-Y. Liang and S. L. Zeger, 1986, for a mean) times
    G / (G - 1) for G clusters, with G - 1 degrees of freedom. With one value per cluster this is `mean_interval`; the interval of a
    single cluster is (-inf, inf).

    Raises:
        ValueError: no values, not as many clusters as values, or a level outside (0, 1).
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    groups, variance = _between_clusters(array, clusters)
    quantile, mean = student_t_quantile(level, max(groups - 1, 1)), float(array.mean())
    reach = math.inf if groups == 1 else quantile * math.sqrt(variance)
    return Interval(mean, mean - reach, mean + reach, array.size, level)


def clustered_proportion_interval(
    outcomes: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray, level: float = 0.95
) -> Interval:
    """Wilson's interval of a proportion of clustered outcomes, with the effective sample size for n.

    That is n / (design effect) * (z / t)^2, at most n: the design effect is the variance between clusters over that of independent
    outcomes, t has the number of clusters less one as degrees of freedom (E. L. Korn and B. I. Graubard, 1998; with Wilson's interval,
    N. Dean and M. Pagano, 2015). If all outcomes are equal it is the number of clusters. With one outcome per cluster this is
    `proportion_interval`.

    Args:
        outcomes: [n] from 0 to 1. clusters: [n] the cluster of each outcome, as a number.

    Raises:
        ValueError: no outcomes, one outside 0 to 1, not as many clusters as outcomes, or a level outside (0, 1).
    """
    array = np.asarray(outcomes, dtype=np.float64).ravel()
    groups, variance = _between_clusters(array, clusters)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError("outcomes lie between 0 and 1")
    n, share = array.size, min(max(float(array.mean()), 0.0), 1.0)
    effective_n = float(groups)
    if 1 < groups < n and 0 < share < 1:
        independent = share * (1 - share) / n
        effective_n = n / max(1.0, variance / independent) * (_normal_quantile(level) / student_t_quantile(level, groups - 1)) ** 2
    return _wilson(share, effective_n, n, level)


def correlation_interval(correlation: float, n: int, level: float = 0.95) -> Interval:
    """Fisher's interval of a rank correlation of n independent pairs; (-1, 1) for n <= 3.

    The variance is (1 + r^2 / 2) / (n - 3) (D. G. Bonett and T. A. Wright, 2000).
    """
    if n <= 3:
        return Interval(correlation, -1.0, 1.0, n, level)
    middle = math.atanh(max(min(correlation, 1 - 1e-12), 1e-12 - 1))
    reach = _normal_quantile(level) * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return Interval(correlation, math.tanh(middle - reach), math.tanh(middle + reach), n, level)


def _wilson(share: float, effective_n: float, n: int, level: float) -> Interval:
    """Wilson's interval of a share of n items that are worth `effective_n` independent ones."""
    z = _normal_quantile(level)
    weight = z * z / effective_n
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / effective_n + weight / (4 * effective_n))
    # At 0 and 1 the bound is exact; rounding would leave it slightly inside.
    low, high = (0.0 if share == 0 else middle - reach), (1.0 if share == 1 else middle + reach)
    return Interval(share, low, high, n, level)


def _between_clusters(array: np.ndarray, clusters: Sequence[int] | np.ndarray) -> tuple[int, float]:
    """The number of clusters, and the variance of the mean of their values; 0 for a single cluster."""
    if not array.size:
        raise ValueError("an interval needs at least one value")
    labels = np.asarray(clusters).ravel()
    if labels.size != array.size:
        raise ValueError(f"{array.size} values need a cluster each, not {labels.size}")
    index = np.unique(labels, return_inverse=True)[1].ravel()
    groups = int(index.max()) + 1
    sums = np.bincount(index, array - array.mean())
    return groups, float((sums**2).sum()) / array.size**2 * groups / max(groups - 1, 1)


def student_t_quantile(level: float, freedom: int) -> float:
    """The t that a Student variable of `freedom` >= 1 degrees stays within with probability `level`.

    Raises:
        ValueError: a level outside (0, 1), or freedom < 1.
    """
    from scipy.special import stdtrit  # a tenth of a second, which every command would pay

    _check_level(level)
    if freedom < 1:
        raise ValueError(f"degrees of freedom are at least 1, not {freedom}")
    return float(stdtrit(freedom, (1 + level) / 2))


def _normal_quantile(level: float) -> float:
    _check_level(level)
    return NormalDist().inv_cdf((1 + level) / 2)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, not {level}")
