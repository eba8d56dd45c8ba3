"""The win rate at equal length, and the score of the best of n."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import comb, expit

from rlhf_lightning.statistics.intervals import Interval, student_t_quantile

STEPS, TOLERANCE, RIDGE = 100, 1e-10, 1e-6


Numbers = Sequence[float] | np.ndarray


def length_controlled_win_rate(wins: Numbers, extra_length: Numbers, clusters: Numbers, level: float = 0.95) -> Interval:
    """Win rate that two policies would have with responses of one length.

    A logistic regression P(win) = sigmoid(a + b tanh(extra length / its standard deviation)), at an extra length of 0 (Y. Dubois et al.,
    "Length-controlled AlpacaEval", 2024, without the difficulty of the instruction). The interval is that of sigmoid(a) with a
    sandwich variance clustered by prompt.

    Args:
        wins: [N] 1 for a win, 0 for a loss, 1/2 for a tie.
        extra_length: [N] length of the new response less that of the other, in any unit.
        clusters: [N] number of the prompt.

    Raises:
        ValueError: no comparisons, or columns of different lengths.
    """
    won, extra, groups = np.asarray(wins, float), np.asarray(extra_length, float), np.asarray(clusters)
    if not len(won) or not len(won) == len(extra) == len(groups):
        raise ValueError(f"{len(won)} outcomes, {len(extra)} lengths and {len(groups)} clusters")
    deviation = float(extra.std())
    columns = np.stack([np.ones_like(extra), np.tanh(extra / deviation) if deviation else np.zeros_like(extra)], axis=1)
    weights = _fit_logistic(columns, won)
    chance = expit(columns @ weights)
    curvature = columns.T @ (columns * (chance * (1 - chance))[:, None]) + RIDGE * np.eye(2)
    numbers, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(numbers), 2))
    np.add.at(sums, index, columns * (won - chance)[:, None])
    inverse = np.linalg.inv(curvature)
    correction = len(numbers) / (len(numbers) - 1) if len(numbers) > 1 else math.inf
    variance = float((inverse @ (sums.T @ sums) @ inverse)[0, 0])
    reach = student_t_quantile(level, max(len(numbers) - 1, 1)) * math.sqrt(variance * correction) if len(numbers) > 1 else math.inf
    low, middle, high = (float(expit(weights[0] + shift)) for shift in (-reach, 0.0, reach))
    return Interval(middle, low, high, len(won), level)


def _fit_logistic(columns: np.ndarray, won: np.ndarray) -> np.ndarray:
    """Weights [2] of maximum likelihood by Newton's method, with a small ridge for separable outcomes."""
    weights = np.zeros(columns.shape[1])
    for _ in range(STEPS):
        chance = expit(columns @ weights)
        gradient = columns.T @ (won - chance) - RIDGE * weights
        step = np.linalg.solve(columns.T @ (columns * (chance * (1 - chance))[:, None]) + RIDGE * np.eye(len(weights)), gradient)
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < TOLERANCE:
            break
    return weights


def best_of_n(scores: Numbers, n: int) -> float:
    """Expected best score of n samples of one prompt, an unbiased estimate.

    The k-th smallest of N scores is the best of a subset of n with probability C(k - 1, n - 1) / C(N, n) (as pass@k of Chen et al. 2021,
    for scores).

    Raises:
        ValueError: n isn't between 1 and the number of scores.
    """
    ordered = np.sort(np.asarray(scores, float))
    if not 1 <= n <= len(ordered):
        raise ValueError(f"the best of {n} can't be estimated from {len(ordered)} samples")
    ranks = np.arange(1, len(ordered) + 1)
    return float(ordered @ (comb(ranks - 1, n - 1) / comb(len(ordered), n)))


def best_of_n_kl(n: int) -> float:
    """Upper bound of the KL of best-of-n sampling in nats, log n - (n - 1) / n (Beirami et al. 2024)."""
    return math.log(n) - (n - 1) / n
