"""The curve of the held-out score against the distance: exact on data of its form, with its peak, slope and loss."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf_lightning.policy.overoptimisation import best_of_n_kl, distance, fit_score

DISTANCES = np.linspace(0.1, 5, 30)


def curve_of(form: str, distances: np.ndarray = DISTANCES) -> np.ndarray:
    """start 0.5, alpha 1.2, beta 0.8."""
    return 0.5 + distances * (1.2 - 0.8 * (np.log(distances) if form == "rl" else distances))


@pytest.mark.parametrize(("form", "peak"), [("rl", math.exp(1.2 / 0.8 - 1)), ("best_of_n", 1.2 / 1.6)])
def test_a_curve_of_its_form_is_fitted_exactly(form, peak):
    fit = fit_score(list(DISTANCES), list(curve_of(form)), form)
    assert fit is not None
    assert (fit.start, fit.alpha, fit.beta) == pytest.approx((0.5, 1.2, 0.8))
    assert fit.peak == pytest.approx(peak)
    assert fit.peak_kl == pytest.approx(peak**2)
    grid = np.linspace(0.05, 6, 20_000)
    assert grid[curve_of(form, grid).argmax()] == pytest.approx(peak, abs=1e-3)
    assert fit.slope(peak)[0] == pytest.approx(0, abs=1e-9)
    step = 1e-6
    assert fit.slope(2.0)[0] == pytest.approx((fit.score(2 + step) - fit.score(2 - step)) / (2 * step), abs=1e-5)


def test_the_loss_is_that_of_the_highest_gain():
    fit = fit_score(list(DISTANCES), list(curve_of("rl")))
    assert fit is not None
    assert fit.loss(fit.peak / 2) == 0
    highest, last = fit.score(fit.peak) - 0.5, fit.score(4.5) - 0.5
    assert fit.loss(4.5) == pytest.approx((highest - last) / highest)


def test_the_standard_error_of_the_slope_covers_it():
    rng, inside = np.random.default_rng(0), 0
    truth = 1.2 - 0.8 * (math.log(2.0) + 1)
    for _ in range(300):
        fit = fit_score(list(DISTANCES), list(curve_of("rl") + rng.normal(0, 0.2, 30)))
        slope, error = fit.slope(2.0)
        inside += abs(slope - truth) < 2.05 * error
    assert 0.92 < inside / 300 < 0.98


def test_few_or_equal_distances_have_no_curve():
    assert fit_score([1.0, 2.0], [0.0, 1.0]) is None
    assert fit_score([1.0] * 20, list(range(20))) is None
    rising = fit_score(list(DISTANCES), list(DISTANCES))
    assert rising is not None
    assert rising.peak > 1e3


def test_distance_and_best_of_n():
    assert distance(-1e-9) == 0
    assert distance(4.0) == 2
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
