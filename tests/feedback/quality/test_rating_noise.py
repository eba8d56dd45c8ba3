"""The one-factor model of ratings against its own likelihood and against what was simulated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, spearmanr
from sklearn.decomposition import FactorAnalysis

from rlhf_lightning.feedback.quality.rating_noise import RatingNoise, rating_noise


def simulated(
    seed: int, units: int = 400, annotators: int = 10, judges: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray, RatingNoise]:
    rng = np.random.default_rng(seed)
    offset, gain, variance = rng.normal(size=annotators), rng.uniform(0.5, 1.5, annotators), rng.uniform(0.1, 2.0, annotators)
    true = rng.normal(size=units)
    unit = np.repeat(np.arange(units), judges)
    annotator = np.concatenate([rng.choice(annotators, judges, replace=False) for _ in range(units)])
    value = offset[annotator] + gain[annotator] * true[unit] + np.sqrt(variance[annotator]) * rng.normal(size=len(unit))
    return unit, annotator, value, RatingNoise(offset, gain, variance, true, np.zeros(units))


@pytest.mark.parametrize("seed", range(3))
def test_complete_ratings_give_scikit_learn_s_factor(seed: int) -> None:
    unit, annotator, value, _ = simulated(seed)
    table = np.zeros((400, 10))
    table[unit, annotator] = value
    reference = FactorAnalysis(1, tol=1e-10, max_iter=5000).fit(table)
    found = rating_noise(unit, annotator, value, shrink=0.0, iterations=5000, tolerance=1e-9)
    np.testing.assert_allclose(found.gain, np.abs(reference.components_[0]), atol=2e-3)
    np.testing.assert_allclose(found.variance, reference.noise_variance_, atol=4e-3)
    np.testing.assert_allclose(found.offset, table.mean(0), atol=1e-3)


def test_with_missing_ratings_it_finds_what_was_simulated() -> None:
    unit, annotator, value, truth = simulated(0, units=3000, judges=4)
    found = rating_noise(unit, annotator, value)
    np.testing.assert_allclose(found.offset, truth.offset, atol=0.15)
    np.testing.assert_allclose(found.gain, truth.gain, atol=0.2)
    np.testing.assert_allclose(found.variance, truth.variance, atol=0.25)
    assert spearmanr(found.reliability, truth.reliability).statistic > 0.95
    assert np.corrcoef(found.true, truth.true)[0, 1] > 0.85
    # The variance that it states for its estimates is the one that they have.
    assert np.mean((found.true - truth.true) ** 2) == pytest.approx(found.spread.mean(), rel=0.1)


def test_what_a_unit_deserves_without_one_rating_is_its_posterior_from_the_rest() -> None:
    unit, annotator, value, _ = simulated(1, units=50, judges=3)
    found = rating_noise(unit, annotator, value, iterations=3000, tolerance=1e-12)
    mean, variance = found.without(unit, annotator, value)
    for row in (0, 4, 100):
        rest = [r for r in np.flatnonzero(unit == unit[row]) if r != row]
        by = annotator[rest]
        gain, noise = found.gain[by], np.diag(found.variance[by])
        cover = np.outer(gain, gain) + noise
        kalman = gain @ np.linalg.inv(cover)
        assert mean[row] == pytest.approx(kalman @ (value[rest] - found.offset[by]), abs=1e-6)
        assert variance[row] == pytest.approx(1 - kalman @ gain, abs=1e-6)


def test_em_only_ever_climbs() -> None:
    unit, annotator, value, _ = simulated(2, units=60, judges=4)
    climbed = []
    for iterations in (1, 2, 4, 8, 16, 64):
        found = rating_noise(unit, annotator, value, shrink=0.0, iterations=iterations, tolerance=-1.0)
        total = 0.0
        for one in range(60):
            rows = np.flatnonzero(unit == one)
            by = annotator[rows]
            cover = np.outer(found.gain[by], found.gain[by]) + np.diag(found.variance[by])
            total += multivariate_normal(found.offset[by], cover).logpdf(value[rows])
        climbed.append(total)
    assert climbed == sorted(climbed)


def test_upside_down_is_unreliable_and_few_ratings_are_like_the_mean() -> None:
    unit, annotator, value, _ = simulated(3)
    value = np.where(annotator == 0, -value, value)
    unit, annotator, value = np.append(unit, 0), np.append(annotator, 10), np.append(value, 9.0)
    found = rating_noise(unit, annotator, value, shrink=2.0)
    assert found.gain[0] < 0
    assert found.reliability[0] == 0
    others = found.reliability[1:10]
    assert others.min() < found.reliability[10] < others.max()
    assert found.offset[10] > 5


def test_equal_ratings_of_everything_are_no_information_and_no_error() -> None:
    unit, annotator = np.repeat(np.arange(5), 2), np.tile([0, 1], 5)
    found = rating_noise(unit, annotator, np.full(10, 0.5))
    assert np.isfinite([*found.offset, *found.gain, *found.variance, *found.true]).all()
