"""Confidence intervals of what is measured on held-out items: means, proportions and paired differences."""

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
    z = _normal_quantile(level)
    share = successes / n
    weight = z * z / n
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    # At 0 and n the bound is exact; rounding would leave it a hair inside.
    low, high = (0.0 if successes == 0 else middle - reach), (1.0 if successes == n else middle + reach)
    return Interval(share, low, high, n, level)


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
