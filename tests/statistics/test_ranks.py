"""Rank statistics against scipy, scikit-learn, torchmetrics and regression residuals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics.functional import kendall_rank_corrcoef, spearman_corrcoef
from torchmetrics.functional.classification import binary_auroc

from rlhf_lightning.statistics.ranks import area_under_curve, kendall_tau_b, partial_rank_correlation, rank_correlation


@pytest.mark.parametrize("seed", range(8))
def test_correlations_are_closed_forms_and_torchmetrics_with_ties(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4 + seed, 12).astype(float), rng.integers(0, 3, 12).astype(float)
    upper = np.triu_indices(12, 1)
    x, y = (np.sign(column[:, None] - column)[upper] for column in (a, b))
    tau = kendall_tau_b(a, b)
    assert tau == pytest.approx((x * y).sum() / np.sqrt(np.count_nonzero(x) * np.count_nonzero(y)), abs=1e-12)
    assert tau == pytest.approx(kendall_rank_corrcoef(torch.tensor(a), torch.tensor(b)).item(), abs=1e-5)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert rank_correlation(a, b) == pytest.approx(spearman_corrcoef(torch.tensor(a), torch.tensor(b)).item(), abs=1e-5)


def test_tau_b_where_a_side_tells_nothing_apart():
    assert kendall_tau_b(np.ones(3), np.arange(3.0)) == 0.0
    assert kendall_tau_b(np.arange(3.0), np.ones(3)) is None
    assert kendall_tau_b(np.ones(1), np.ones(1)) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_partial_correlation_is_that_of_the_residuals(seed):
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=200)
    length = worth + rng.normal(size=200)
    score = 0.3 * length.round() + worth + rng.normal(size=200)
    ranks = np.array([stats.rankdata(column) for column in (score, length, worth)])
    design = np.stack([np.ones(200), ranks[2]], 1)
    left = [ranks[i] - design @ np.linalg.lstsq(design, ranks[i], rcond=None)[0] for i in (0, 1)]
    expected = np.corrcoef(*left)[0, 1]
    assert partial_rank_correlation(score, length, worth) == pytest.approx(expected, abs=1e-10)
    assert expected < stats.spearmanr(score, length).statistic


def test_the_partial_correlation_is_unknown_where_nothing_is_left():
    x = np.arange(10.0)
    assert partial_rank_correlation(x, x[::-1], x) is None
    assert partial_rank_correlation(x, np.ones(10), np.random.default_rng(0).normal(size=10)) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_that_of_scikit_learn_with_ties(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    up = rng.random(60) < 0.4
    scores = rng.integers(0, 8, 60) * 30.0 + 20 * up
    found = area_under_curve(scores, up)
    assert found is not None
    assert found.mean == pytest.approx(metrics.roc_auc_score(up, scores), abs=1e-12)
    assert found.mean == pytest.approx(binary_auroc(torch.tensor(scores / 300), torch.tensor(up).long()).item(), abs=1e-5)
    assert 0 <= found.low < found.mean < found.high <= 1
    assert area_under_curve(scores, np.ones(60, bool)) is None


def test_the_interval_of_the_area_covers_the_truth():
    """Normal scores one apart: the area is Phi(1 / sqrt 2)."""
    rng, truth, times = np.random.default_rng(0), stats.norm.cdf(1 / np.sqrt(2)), 600
    up = np.arange(80) < 40
    covered = [one.low <= truth <= one.high for one in (area_under_curve(rng.normal(size=80) + up, up) for _ in range(times))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
