"""The held-out score as a function of the distance d = sqrt(KL) from the start, and its peak.

Gao et al. 2022 (arXiv 2210.10760), section 3.1: for PPO R(d) = d (alpha - beta log d), for best-of-n sampling R(d) = d (alpha - beta d),
where R is the gain in the gold score. Deviations: the start's score is fitted too (they subtract it), and alpha and beta by least squares,
since both forms are linear in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Form = Literal["rl", "best_of_n"]
MIN_POINTS = 8
"""Measurements from which a curve is fitted."""
SMALLEST = 1e-3
"""Distance below which log d is cut: the KL of a policy that hasn't moved is rounding."""


@dataclass(frozen=True)
class ScoreCurve:
    """A fitted curve start + R(d).

    Attributes:
        start: the score at d = 0.
        alpha, beta: coefficients of the form.
        covariance: [3, 3] of (start, alpha, beta).
        freedom: degrees of freedom of the residuals.
    """

    form: Form
    start: float
    alpha: float
    beta: float
    covariance: np.ndarray
    freedom: int

    @property
    def peak(self) -> float:
        """The distance of the highest score; infinite where the curve has no maximum beyond the start."""
        if self.beta <= 0:
            return math.inf
        if self.form == "best_of_n":
            return max(0.0, self.alpha / (2 * self.beta))
        return math.exp(min(self.alpha / self.beta - 1, 50.0))

    @property
    def peak_kl(self) -> float:
        """The KL of the peak, in nats per response."""
        return self.peak**2

    def score(self, distance: float) -> float:
        return float(np.array([self.start, self.alpha, self.beta]) @ _terms(np.array([distance]), self.form)[0])

    def loss(self, distance: float) -> float:
        """The fraction of the highest gain that is lost at a distance beyond the peak; 0 before it."""
        if distance <= self.peak:
            return 0.0
        highest = self.score(self.peak) - self.start
        return (self.score(self.peak) - self.score(distance)) / highest if highest > 0 else math.inf

    def slope(self, distance: float) -> tuple[float, float]:
        """dR/dd at a distance, and its standard error."""
        distance = max(distance, SMALLEST)
        last = -2 * distance if self.form == "best_of_n" else -(math.log(distance) + 1)
        gradient = np.array([0.0, 1.0, last])
        return float(gradient @ [self.start, self.alpha, self.beta]), math.sqrt(max(0.0, float(gradient @ self.covariance @ gradient)))


def fit_score(distances: Sequence[float], scores: Sequence[float], form: Form = "rl") -> ScoreCurve | None:
    """Fit the curve of a form; None for few measurements (MIN_POINTS), or equal distances."""
    x, y = np.asarray(distances, dtype=float), np.asarray(scores, dtype=float)
    if len(x) < MIN_POINTS:
        return None
    terms = _terms(x, form)
    normal = terms.T @ terms
    if np.linalg.matrix_rank(terms) < 3 or np.linalg.cond(normal) > 1e12:
        return None
    inverse = np.linalg.inv(normal)
    start, alpha, beta = coefficients = inverse @ terms.T @ y
    freedom = len(x) - 3
    variance = float(((y - terms @ coefficients) ** 2).sum()) / freedom
    return ScoreCurve(form, float(start), float(alpha), float(beta), variance * inverse, freedom)


def distance(kl: float) -> float:
    """The distance d = sqrt(KL) of a measured KL, which may be slightly negative."""
    return math.sqrt(max(kl, 0.0))


def best_of_n_kl(n: int) -> float:
    """The KL of best-of-n sampling in nats, log n - (n - 1) / n.

    An upper bound where scores tie (Beirami et al. 2024).
    """
    return math.log(n) - (n - 1) / n


def _terms(x: np.ndarray, form: Form) -> np.ndarray:
    """The regressors [n, 3] of start, alpha and beta."""
    x = np.maximum(x, SMALLEST)
    return np.stack([np.ones_like(x), x, -(x**2) if form == "best_of_n" else -x * np.log(x)], axis=1)
