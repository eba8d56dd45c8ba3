"""Calibration by brute force, against torchmetrics, and on scores whose odds are true."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhf_lightning.reward.evaluation.calibration import calibration


def drawn(n: int, factor: float = 1.0, seed: int = 0) -> np.ndarray:
    """Differences (better - worse) of a model whose log-odds are `factor` times the true ones."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n) * 2
    won = rng.random(n) < 1 / (1 + np.exp(-true))
    return factor * np.where(won, true, -true)


def brute_force(differences: np.ndarray, bins: int) -> float:
    """Bin by the share of comparisons that are less sure, those that are as sure counting half."""
    sure = [1 / (1 + math.exp(-abs(d))) for d in differences.tolist()]
    right = [1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences.tolist()]
    gaps: dict[int, float] = {}
    for c, r in zip(sure, right, strict=True):
        share = (sum(other < c for other in sure) + sum(other == c for other in sure) / 2) / len(sure)
        gaps[int(share * bins)] = gaps.get(int(share * bins), 0.0) + c - r
    return sum(map(abs, gaps.values())) / len(sure)


@pytest.mark.parametrize(("n", "bins"), [(1, 1), (39, 1), (47, 2), (239, 11), (700, 12)])
def test_the_error_by_brute_force(n, bins):
    differences = drawn(n, 2.5)
    differences[:: max(n // 5, 1)] = 0
    found = calibration(differences, np.arange(n))
    assert found is not None
    assert (len(found.bins), found.n) == (bins, n)
    assert max(one.right.n for one in found.bins) - min(one.right.n for one in found.bins) <= 5, "five are equally sure"
    assert found.ece == pytest.approx(brute_force(differences, bins), abs=1e-12)
    assert sum(one.right.n for one in found.bins) == n
    assert [one.stated for one in found.bins] == sorted(one.stated for one in found.bins)


def test_brier_and_likelihood_are_those_of_the_judgements():
    found = calibration(np.array([2.0, -1.0, 0.0, 500.0, -500.0]), np.arange(5))
    p = [1 / (1 + math.exp(-d)) for d in (2.0, -1.0, 0.0)]
    assert found is not None
    assert found.brier == pytest.approx((sum((1 - q) ** 2 for q in p) + 0 + 1) / 5)
    assert found.nll == pytest.approx((-sum(math.log(q) for q in p) + 0 + 500) / 5)


def test_with_one_bin_for_each_sureness_it_is_torchmetrics_error():
    """Two kinds of sureness, each a bin of ours and of equal width, too."""
    from torchmetrics.functional.classification import binary_calibration_error

    differences = np.concatenate([np.repeat([0.4, -0.4], [9, 11]), np.repeat([2.0, -2.0], [15, 5])])
    ours = calibration(differences, np.arange(40))
    sure = torch.sigmoid(torch.tensor(np.abs(differences)))
    theirs = binary_calibration_error(sure, torch.tensor(differences > 0).long(), n_bins=4, norm="l1")
    assert ours is not None
    assert ours.ece == pytest.approx(theirs.item(), abs=1e-6)


def test_true_odds_leave_what_chance_leaves_and_wrong_ones_more():
    n, times = 600, 60
    found = [one for one in (calibration(drawn(n, 1.0, seed), np.arange(n)) for seed in range(times)) if one]
    errors = [one.ece for one in found]
    assert np.mean(errors) == pytest.approx(np.mean([one.ece_by_chance for one in found]), rel=0.05)
    sure = calibration(drawn(n, 4.0), np.arange(n))
    assert sure is not None
    assert sure.ece > max(errors)
    assert sure.nll > found[0].nll
    assert calibration(np.zeros(0), np.zeros(0)) is None


def test_the_intervals_of_the_bins_know_the_prompts():
    differences = drawn(400)
    alone, together = calibration(differences, np.arange(400)), calibration(np.repeat(differences[:100], 4), np.repeat(np.arange(100), 4))
    assert alone is not None
    assert together is not None
    width = [np.mean([one.right.high - one.right.low for one in found.bins]) for found in (alone, together)]
    assert width[1] > 1.4 * width[0]
