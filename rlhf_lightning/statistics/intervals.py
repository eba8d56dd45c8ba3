"""Confidence intervals of what is measured on held-out items: means, proportions, paired differences, clusters and correlations."""

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
    """Student's t interval of the mean change of the same items: narrower than the two means' own where items differ a lot.

    Raises:
        ValueError: the two don't have the same number of items, or as `mean_interval`.
    """
    first, second = np.asarray(before, dtype=np.float64).ravel(), np.asarray(after, dtype=np.float64).ravel()
    if first.size != second.size:
        raise ValueError(f"paired values come in pairs, not {first.size} before and {second.size} after")
    return mean_interval(second - first, level)


def proportion_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927), which stays in [0, 1] and holds for few items too.

    Raises:
        ValueError: n < 1, successes outside 0 to n, or a level outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs n >= 1 and 0 <= successes <= n, not {successes} of {n}")
    return _wilson(successes / n, n, n, level)


def clustered_mean_interval(values: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of values of which those of one cluster (what was said about one prompt) may hang together.

    The variance is that of the clusters' summed deviations (the sandwich of K.-Y. Liang and S. L. Zeger, 1986, for a mean) times
    G / (G - 1) for G clusters, with G - 1 degrees of freedom. Where each value is a cluster of its own this is `mean_interval`; a single
    cluster says nothing about the spread: (-inf, inf).

    Raises:
        ValueError: no values, not one cluster for each, or a level outside (0, 1).
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    groups, variance = _between_clusters(array, clusters)
    quantile, mean = student_t_quantile(level, max(groups - 1, 1)), float(array.mean())
    reach = math.inf if groups == 1 else quantile * math.sqrt(variance)
    return Interval(mean, mean - reach, mean + reach, array.size, level)


def clustered_proportion_interval(
    outcomes: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray, level: float = 0.95
) -> Interval:
    """Wilson's interval of a proportion whose outcomes come in clusters, with as many items as the outcomes are worth.

    Those are n / (design effect) * (z / t)^2, at most n: the design effect is the variance between clusters over that of independent
    outcomes, t has as many degrees of freedom as clusters less one (E. L. Korn and B. I. Graubard, 1998; with Wilson's interval, N. Dean
    and M. Pagano, 2015). Where the outcomes are all equal the clusters are counted, as if the outcomes of each were one. Where each
    outcome is a cluster of its own this is `proportion_interval`.

    Args:
        outcomes: 0 to 1 each. clusters: which each belongs to, as numbers.

    Raises:
        ValueError: no outcomes, one outside 0 to 1, not one cluster for each, or a level outside (0, 1).
    """
    array = np.asarray(outcomes, dtype=np.float64).ravel()
    groups, variance = _between_clusters(array, clusters)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError("outcomes lie between 0 and 1")
    n, share = array.size, min(max(float(array.mean()), 0.0), 1.0)
    worth = float(groups)
    if 1 < groups < n and 0 < share < 1:
        independent = share * (1 - share) / n
        worth = n / max(1.0, variance / independent) * (_normal_quantile(level) / student_t_quantile(level, groups - 1)) ** 2
    return _wilson(share, worth, n, level)


def correlation_interval(correlation: float, n: int, level: float = 0.95) -> Interval:
    """Fisher's interval of a rank correlation of n independent pairs, with the variance (1 + r^2 / 2) / (n - 3) of D. G. Bonett and
    T. A. Wright, 2000; (-1, 1) for n <= 3, which says nothing about the spread."""
    if n <= 3:
        return Interval(correlation, -1.0, 1.0, n, level)
    middle = math.atanh(max(min(correlation, 1 - 1e-12), 1e-12 - 1))
    reach = _normal_quantile(level) * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return Interval(correlation, math.tanh(middle - reach), math.tanh(middle + reach), n, level)


def _wilson(share: float, worth: float, n: int, level: float) -> Interval:
    """Wilson's interval of a share of n items that are worth so many independent ones."""
    z = _normal_quantile(level)
    weight = z * z / worth
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / worth + weight / (4 * worth))
    # At 0 and 1 the bound is exact; rounding would leave it a hair inside.
    low, high = (0.0 if share == 0 else middle - reach), (1.0 if share == 1 else middle + reach)
    return Interval(share, low, high, n, level)


def _between_clusters(array: np.ndarray, clusters: Sequence[int] | np.ndarray) -> tuple[int, float]:
    """How many clusters there are, and the variance of the mean of what is in them; 0 for a single one."""
    if not array.size:
        raise ValueError("an interval needs at least one value")
    of = np.asarray(clusters).ravel()
    if of.size != array.size:
        raise ValueError(f"{array.size} values need a cluster each, not {of.size}")
    place = np.unique(of, return_inverse=True)[1].ravel()
    groups = int(place.max()) + 1
    sums = np.bincount(place, array - array.mean())
    return groups, float((sums**2).sum()) / array.size**2 * groups / max(groups - 1, 1)


def student_t_quantile(level: float, freedom: int) -> float:
    """The t for which a Student variable of `freedom` >= 1 degrees lies in [-t, t] with probability `level`.

    Up to 200 degrees: the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4, solved by bisection; beyond, where they grow long,
    the expansion 26.7.5 around the normal quantile, whose error there is below 1e-8 for levels up to 0.999.

    Raises:
        ValueError: a level outside (0, 1), or freedom < 1.
    """
    z = _normal_quantile(level)
    if freedom < 1:
        raise ValueError(f"degrees of freedom are at least 1, not {freedom}")
    if freedom > 200:
        terms = (
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
        )
        return z + sum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        if _student_t_within(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _student_t_within(angle: float, freedom: int) -> float:
    """P(|t| < sqrt(freedom) tan(angle)): Abramowitz and Stegun 26.7.3 for odd and 26.7.4 for even degrees of freedom."""
    odd, cosine = freedom % 2, math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    inside = math.sin(angle) * total
    return 2 / math.pi * (angle + inside) if odd else inside


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, not {level}")
    return NormalDist().inv_cdf((1 + level) / 2)
