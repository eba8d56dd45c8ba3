"""Whether a reward model is as sure as it is right: P(better beats worse) = sigmoid(difference of scores), held to what people said."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rlhf_lightning.statistics.intervals import Interval, clustered_proportion_interval

MOST_BINS, FEWEST_IN_A_BIN = 12, 20


@dataclass(frozen=True)
class Bin:
    """Comparisons of like sureness: the mean probability that the model gave the side it prefers, and how often that side was better."""

    stated: float
    right: Interval


@dataclass(frozen=True)
class Calibration:
    """How a model's probabilities fit n comparisons.

    Attributes:
        ece: expected calibration error, the mean over comparisons of |stated - right| of their bin (C. Guo et al., 2017).
        ece_by_chance: what the error would be on average, for so many independent comparisons, if every probability were true: small
            sets look badly calibrated.
        brier: mean squared difference of 1 and the probability of what people said; 0.25 for a coin.
        nll: mean negative log-probability of what people said, nats; log 2 for a coin.
        bins: of equal numbers of comparisons, the least sure first.
    """

    ece: float
    ece_by_chance: float
    brier: float
    nll: float
    bins: list[Bin]
    n: int


def calibration(differences: np.ndarray, clusters: np.ndarray) -> Calibration | None:
    """The calibration of comparisons; None without any.

    At most MOST_BINS bins of equal counts, of about FEWEST_IN_A_BIN comparisons or more where there are so many; comparisons of equal
    sureness stay together. A tie of the scores is a probability of a half that is half right.

    Args:
        differences: [M] score of the better less that of the worse response, in log-odds: not normalised.
        clusters: [M] the prompt of each, as a number: comparisons on one prompt hang together (`clustered_proportion_interval`).
    """
    n = len(differences)
    if not n:
        return None
    sure = 1 / (1 + np.exp(-np.abs(differences)))
    right = (np.sign(differences) + 1) / 2
    found, ece, by_chance = [], 0.0, 0.0
    _, place, times = np.unique(sure, return_inverse=True, return_counts=True)
    middle = (np.cumsum(times) - times / 2) / n
    bins = np.floor(middle * min(MOST_BINS, max(1, n // FEWEST_IN_A_BIN)))[place]
    for rows in (np.flatnonzero(bins == bin) for bin in np.unique(bins)):
        stated = float(sure[rows].mean())
        found.append(Bin(stated, clustered_proportion_interval(right[rows], clusters[rows])))
        ece += len(rows) / n * abs(stated - found[-1].right.mean)
        # The mean of |X| for a normal X of this deviation, the count of right ones being nearly one.
        by_chance += math.sqrt(2 / math.pi * float((sure[rows] * (1 - sure[rows])).sum())) / n
    brier = float(np.mean(np.where(differences > 0, 1 - sure, sure) ** 2))
    return Calibration(ece, by_chance, brier, float(np.logaddexp(0, -differences).mean()), found, n)
