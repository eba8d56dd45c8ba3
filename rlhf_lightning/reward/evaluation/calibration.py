"""Calibration of P(better beats worse) = sigmoid(difference of scores) against judgements.

Own code: torchmetrics' calibration error has bins of equal width, no intervals and no error by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlhf_lightning.statistics.intervals import Interval, clustered_proportion_interval

MAX_BINS, MIN_BIN_SIZE = 12, 20


@dataclass(frozen=True)
class Bin:
    """Comparisons of similar confidence: mean probability of the preferred side, and its accuracy."""

    stated: float
    right: Interval


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model's probabilities on n comparisons.

    Attributes:
        ece: expected calibration error, the mean over comparisons of |stated - right| of their bin (C. Guo et al., 2017).
        ece_by_chance: the expected error for n independent comparisons if every probability were true: small sets look badly
            calibrated.
        brier: mean squared difference of 1 and the probability of the judgement; 0.25 for a coin.
        nll: mean negative log-probability of the judgement, nats; log 2 for a coin.
        bins: of equal numbers of comparisons, the least confident first.
    """

    ece: float
    ece_by_chance: float
    brier: float
    nll: float
    bins: list[Bin]
    n: int


def calibration(differences: np.ndarray, clusters: np.ndarray) -> Calibration | None:
    """The calibration of comparisons; None without any.

    At most MAX_BINS bins of equal counts, of about MIN_BIN_SIZE comparisons or more if there are so many; comparisons of equal
    confidence share a bin. A tie of the scores counts as a probability of a half that is half right.

    Args:
        differences: [M] score of the better less that of the worse response, in log-odds: not normalised.
        clusters: [M] the prompt of each, as a number, for `clustered_proportion_interval`.
    """
    n = len(differences)
    if not n:
        return None
    confidence = 1 / (1 + np.exp(-np.abs(differences)))
    right = (np.sign(differences) + 1) / 2
    bins: list[Bin] = []
    ece = by_chance = 0.0
    _, index, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / n
    bin_numbers = np.floor(middle * min(MAX_BINS, max(1, n // MIN_BIN_SIZE)))[index]
    for rows in (np.flatnonzero(bin_numbers == number) for number in np.unique(bin_numbers)):
        stated = float(confidence[rows].mean())
        bins.append(Bin(stated, clustered_proportion_interval(right[rows], clusters[rows])))
        ece += len(rows) / n * abs(stated - bins[-1].right.mean)
        # The mean of |X| for a normal X of this deviation, the number of right ones being nearly normal.
        by_chance += math.sqrt(2 / math.pi * float((confidence[rows] * (1 - confidence[rows])).sum())) / n
    brier = float(np.mean(np.where(differences > 0, 1 - confidence, confidence) ** 2))
    return Calibration(ece, by_chance, brier, float(np.logaddexp(0, -differences).mean()), bins, n)
