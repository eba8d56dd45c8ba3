"""Alpha against the krippendorff package, the published example, and what must hold whatever the data."""

from __future__ import annotations

import warnings

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.quality.agreement import LEVELS, MeasurementLevel, alpha_interval

N = np.nan
# K. Krippendorff, "Computing Krippendorff's alpha-reliability", 2011, section C: four observers, twelve units.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
)


def krippendorff_alpha(values: np.ndarray, level: MeasurementLevel) -> float | None:
    """Alpha of values [raters, units], NaN for missing ones."""
    return alpha_interval(np.nonzero(~np.isnan(values))[1], values[~np.isnan(values)], level, repetitions=1).alpha


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_published_example(level: MeasurementLevel, alpha: float) -> None:
    assert krippendorff_alpha(PUBLISHED, level) == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_reference_library_s(level: MeasurementLevel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raters, units, values = rng.integers(2, 7), rng.integers(2, 40), rng.integers(2, 9)
    truth = rng.integers(values, size=units)
    noisy = np.where(rng.random((raters, units)) < 0.5, truth, rng.integers(values, size=(raters, units)))
    data = np.where(rng.random((raters, units)) < rng.choice([0, 0.2, 0.6]), N, noisy.astype(float))
    found = krippendorff_alpha(data, level)
    paired = data[:, (~np.isnan(data)).sum(0) > 1]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        assert found is None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = krippendorff.alpha(reliability_data=data, level_of_measurement=level)
    assert found == pytest.approx(expected, abs=1e-10)


def test_nothing_to_measure_is_none() -> None:
    assert krippendorff_alpha(np.full((3, 4), N), "nominal") is None
    assert krippendorff_alpha(np.array([[1.0, N], [N, 2.0]]), "interval") is None
    assert krippendorff_alpha(np.ones((3, 4)), "ordinal") is None
    # A unit that one alone judged brings no variation.
    assert krippendorff_alpha(np.array([[1.0, 2.0], [1.0, N]]), "nominal") is None


@pytest.mark.parametrize("values", [np.array([[1.0, np.inf], [1.0, 2.0]])])
def test_what_is_no_table_of_values_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ConfigError):
        krippendorff_alpha(values, "nominal")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="nominal, ordinal, interval"):
        krippendorff_alpha(np.ones((2, 2)), "ratio")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0, N]), min_size=6, max_size=6), min_size=2, max_size=5),
    level=st.sampled_from(LEVELS),
    seed=st.integers(0, 100),
)
def test_the_order_of_raters_and_units_and_the_unit_of_measurement_do_not_matter(
    values: list[list[float]], level: MeasurementLevel, seed: int
) -> None:
    data = np.array(values)
    rng = np.random.default_rng(seed)
    shuffled = 3 - 2 * data[rng.permutation(len(data))][:, rng.permutation(6)]
    one, other = krippendorff_alpha(data, level), krippendorff_alpha(shuffled, level)
    assert (one is None and other is None) or one == pytest.approx(other, abs=1e-9)


def listed(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    there = ~np.isnan(data)
    return np.nonzero(there)[1], data[there]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Two raters say the truth with 0.9, else anything of two labels: they agree with 0.905, so alpha is 0.81."""
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth = rng.integers(2, size=150)
        data = np.where(rng.random((2, 150)) < 0.9, truth, rng.integers(2, size=(2, 150))).astype(float)
        found = alpha_interval(*listed(data), "nominal", repetitions=200)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.81 <= found.high
    assert 88 <= inside <= 100


def test_units_that_hang_together_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(2, size=30), 10)
    quality = np.repeat(rng.random(30) < 0.5, 10)
    data = np.stack([truth, np.where(quality, truth, 1 - truth)]).astype(float)
    unit, value = listed(data)
    alone, together = alpha_interval(unit, value, "nominal"), alpha_interval(unit, value, "nominal", cluster=unit // 10)
    assert alone.alpha == together.alpha
    assert together.high - together.low > 2 * (alone.high - alone.low)  # type: ignore[operator]


@pytest.mark.parametrize("level", LEVELS)
def test_perfect_agreement_has_no_width_and_few_units_no_interval(level: MeasurementLevel) -> None:
    data = np.tile(np.arange(20.0), (3, 1))
    assert (found := alpha_interval(*listed(data), level)).alpha == found.low == found.high == 1
    few = alpha_interval(*listed(data[:, :9]), level)
    assert (few.alpha, few.low, few.high) == (1, None, None)
