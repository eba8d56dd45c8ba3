"""A one-factor model of ratings: true values, and each annotator's offset, gain and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EPS = 1e-9


@dataclass(frozen=True)
class RatingNoise:
    """value = offset + gain * true + noise, with `true` of mean 0 and variance 1 over units.

    A annotators, U units.

    Attributes:
        offset, gain, variance: [A] of each annotator; the variance is that of its noise.
        true: [U] estimate of the unit's value, and spread: [U] its variance.
    """

    offset: np.ndarray
    gain: np.ndarray
    variance: np.ndarray
    true: np.ndarray
    spread: np.ndarray

    @property
    def reliability(self) -> np.ndarray:
        """[A] fraction of an annotator's variance explained by the units; 0 for a negative gain."""
        return np.where(self.gain > 0, self.gain**2 / (self.gain**2 + self.variance), 0.0)

    def without(self, unit: np.ndarray, annotator: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return [N] mean and variance of the unit's value from all ratings except this one."""
        precision = 1 / self.spread[unit]
        weighted_mean = self.true[unit] * precision
        gain, variance = self.gain[annotator], self.variance[annotator]
        precision = np.clip(precision - gain**2 / variance, 1.0, None)
        return (weighted_mean - gain * (value - self.offset[annotator]) / variance) / precision, 1 / precision


def rating_noise(
    unit: np.ndarray,
    annotator: np.ndarray,
    value: np.ndarray,
    *,
    shrink: float = 2.0,
    iterations: int = 500,
    tolerance: float = 1e-5,
) -> RatingNoise:
    """Fit a one-factor model with missing values by EM.

    D. B. Rubin, D. T. Thayer, "EM algorithms for ML factor analysis", 1982.

    Args:
        unit, annotator: [N] integers from 0; value: [N] the ratings, on one scale.
        shrink: number of ratings with the mean gain and noise, around the annotator's offset, added to each annotator's. Zero is
            maximum likelihood, in which an annotator's noise may vanish (a Heywood case); its variance is at least 1e-4 of the total.
        tolerance: EM ends when no unit's estimate changes by more, in standard deviations.
    """
    units, annotators = int(unit.max()) + 1, int(annotator.max()) + 1
    n = np.bincount(annotator, minlength=annotators).astype(np.float64)
    total = max(float(value.var()), _EPS)
    offset = np.bincount(annotator, value, annotators) / n.clip(1)
    offset, gain, variance = np.where(n > 0, offset, value.mean()), np.full(annotators, (total / 2) ** 0.5), np.full(annotators, total / 2)
    true, spread = np.zeros(units), np.ones(units)
    for _ in range(iterations):
        slope = gain / variance
        precision = 1 + np.bincount(unit, (gain * slope)[annotator], units)
        previous, spread = true, 1 / precision
        true = spread * np.bincount(unit, slope[annotator] * (value - offset[annotator]), units)
        if np.abs(true - previous).max() <= tolerance:
            break
        offset, gain, variance = _annotators(annotator, value, true[unit], spread[unit], n, variance, shrink, total)
    return RatingNoise(offset, gain, variance, true, spread)


def _annotators(
    annotator: np.ndarray,
    value: np.ndarray,
    true: np.ndarray,
    spread: np.ndarray,
    n: np.ndarray,
    variance: np.ndarray,
    shrink: float,
    total: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regress each annotator's values on the units' estimates, with `shrink` mean ratings added."""

    def total_of(column: np.ndarray) -> np.ndarray:
        return np.bincount(annotator, column, len(n))

    t, tt, v, vt, vv = (
        total_of(true),
        total_of(true**2 + spread),
        total_of(value),
        total_of(value * true),
        total_of(value**2),
    )
    moments = np.stack([t, tt, v, vt, vv])
    # The added ratings lie around the annotator's offset: the offset isn't shrunk and doesn't count as noise.
    mean_t = t / n.clip(1)
    pooled_gain = float(((vt - v * mean_t).sum()) / max((tt - t * mean_t).sum(), _EPS))
    centre = v / n.clip(1) - pooled_gain * mean_t
    pooled_noise = float(np.exp((n * np.log(variance)).sum() / n.sum()))
    ones = np.ones(len(n))
    prior = np.stack([0 * ones, ones, centre, pooled_gain * ones, centre**2 + pooled_gain**2 + pooled_noise])
    n, moments = n + shrink, moments + shrink * prior
    t, tt, v, vt, _ = moments
    count = np.clip(n, _EPS, None)
    gain = np.asarray((vt - v * t / count) / np.clip(tt - t * t / count, _EPS, None))
    offset = (v - gain * t) / count
    noise = _residual(moments, n, offset, gain)
    return offset, gain, np.clip(noise, 1e-4 * total, None)


def _residual(moments: np.ndarray, n: np.ndarray, offset: np.ndarray | float, gain: np.ndarray) -> np.ndarray:
    t, tt, v, vt, vv = moments
    total = vv - 2 * offset * v - 2 * gain * vt + n * offset**2 + 2 * offset * gain * t + gain**2 * tt
    return np.asarray(total / np.clip(n, _EPS, None))
