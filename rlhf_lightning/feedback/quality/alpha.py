"""Krippendorff's alpha: how far several annotators agree beyond chance. Any number of them, missing values allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlhf_lightning.errors import ConfigError

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")
FEWEST_CLUSTERS = 10


@dataclass(frozen=True)
class AlphaInterval:
    """Alpha and the interval from low to high in which 95 % of its bootstrap repetitions lie; None where it isn't defined."""

    alpha: float | None
    low: float | None = None
    high: float | None = None


def krippendorff_alpha(values: np.ndarray, level: Level) -> float | None:
    """Alpha = 1 - observed disagreement / disagreement expected by chance: 1 is perfect, 0 chance, below 0 systematic disagreement.

    K. Krippendorff, "Computing Krippendorff's alpha-reliability", 2011. The ordinal distance between two values is the difference of
    their middle ranks, so that ordinal alpha is the interval alpha of middle ranks.

    Args:
        values: [raters, units], NaN where a rater didn't judge a unit.
        level: what differences mean. "nominal": equal or not; "ordinal": how many values lie between; "interval": the number itself.

    Returns:
        None where no unit has two values, or where all pairable values are equal: agreement without variation isn't measurable.

    Raises:
        ConfigError: values without two dimensions, an infinite value, or an unknown level.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ConfigError(f"alpha takes values [raters, units], not an array of {values.ndim} dimensions")
    _, unit = np.nonzero(~np.isnan(values))
    return alpha_of(unit, values[~np.isnan(values)], level)


def alpha_of(unit: np.ndarray, value: np.ndarray, level: Level) -> float | None:
    """`krippendorff_alpha` of a list: unit [N] what was judged, value [N] how."""
    return _Pairable(unit, value, level).alpha()


def alpha_interval(
    unit: np.ndarray,
    value: np.ndarray,
    level: Level,
    *,
    cluster: np.ndarray | None = None,
    repetitions: int = 500,
    seed: int = 0,
) -> AlphaInterval:
    """Alpha with a 95 % percentile interval over units drawn again with replacement.

    A deviation: Krippendorff's own bootstrap draws pairs of values as if they were independent, which is too narrow where units have
    many raters. No interval is given for fewer than ten units (clusters).

    Args:
        cluster: [N] units that hang together (the responses of one ranking) have the same cluster and are drawn together.
        repetitions: how many samples; those without variation are left out.
    """
    pairable = _Pairable(unit, value, level)
    alpha = pairable.alpha()
    if alpha is None:
        return AlphaInterval(None)
    owner = np.unique((unit if cluster is None else cluster)[pairable.rows], return_inverse=True)[1]
    cluster_of_unit = np.zeros(pairable.units, dtype=np.int64)
    cluster_of_unit[pairable.unit] = owner
    count = int(owner.max()) + 1
    if count < FEWEST_CLUSTERS:
        return AlphaInterval(alpha)
    rng = np.random.default_rng(seed)
    draws = (np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(repetitions))
    found = [again for draw in draws if (again := pairable.alpha(draw[cluster_of_unit].astype(np.float64))) is not None]
    if not found:
        return AlphaInterval(alpha)
    low, high = np.quantile(found, [0.025, 0.975])
    return AlphaInterval(alpha, float(low), float(high))


class _Pairable:
    """The values of units that have at least two, with what doesn't change when units are drawn again."""

    def __init__(self, unit: np.ndarray, value: np.ndarray, level: Level) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level={level!r}: the levels of alpha are {', '.join(LEVELS)}")
        if not np.isfinite(value).all():
            raise ConfigError("alpha takes finite values; NaN stands for a missing one in krippendorff_alpha alone")
        unit = np.unique(unit, return_inverse=True)[1]
        self.rows = np.flatnonzero(np.bincount(unit)[unit] > 1) if len(unit) else np.zeros(0, dtype=np.int64)
        self.unit = np.unique(unit[self.rows], return_inverse=True)[1]
        self.units = int(self.unit.max()) + 1 if len(self.unit) else 0
        self.size = np.bincount(self.unit, minlength=self.units)
        self.distinct, self.code = np.unique(value[self.rows], return_inverse=True)
        self.level = level
        self._fixed = None if level == "ordinal" else self._within(self.distinct)

    def alpha(self, times: np.ndarray | None = None) -> float | None:
        """Alpha where each unit counts `times` [units]; once by default."""
        if len(self.distinct) < 2:
            return None
        times = np.ones(self.units) if times is None else times
        n_of = np.bincount(self.code, times[self.unit], len(self.distinct))
        n = n_of.sum()
        scale = np.cumsum(n_of) - n_of / 2 if self.level == "ordinal" else self.distinct
        within = self._within(scale) if self._fixed is None else self._fixed
        if self.level == "nominal":
            expected = (n * n - (n_of * n_of).sum()) / (n - 1)
        else:
            expected = 2 * n * (n_of * (scale - (n_of * scale).sum() / n) ** 2).sum() / (n - 1)
        return None if np.count_nonzero(n_of) < 2 else 1 - float((times * within).sum() / expected)

    def _within(self, scale: np.ndarray) -> np.ndarray:
        """[units] the distances of all ordered pairs of values in a unit, over its number of values less one."""
        if self.level == "nominal":
            together, equal = np.unique(self.unit * len(self.distinct) + self.code, return_counts=True)
            agreeing = np.bincount(together // max(len(self.distinct), 1), equal**2, self.units)
            return np.asarray((self.size**2 - agreeing) / (self.size - 1))
        value = scale[self.code]
        mean = np.bincount(self.unit, value, self.units) / self.size
        return np.asarray(2 * self.size * np.bincount(self.unit, (value - mean[self.unit]) ** 2, self.units) / (self.size - 1))
