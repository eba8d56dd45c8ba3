"""Intervals against tables, closed forms and their own promise."""

import math

import numpy as np
import pytest

from rlhf_lightning.interval import mean_interval, paired_interval, proportion_interval, student_t_quantile

# Two-sided Student t, from the printed tables (e.g. NIST/SEMATECH e-Handbook 1.3.6.7.2).
TABLE = {
    0.90: {1: 6.314, 2: 2.920, 3: 2.353, 5: 2.015, 10: 1.812, 30: 1.697, 60: 1.671, 100: 1.660},
    0.95: {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 30: 2.042, 60: 2.000, 100: 1.984},
    0.99: {1: 63.657, 2: 9.925, 3: 5.841, 5: 4.032, 10: 3.169, 30: 2.750, 60: 2.660, 100: 2.626},
}


@pytest.mark.parametrize(("level", "freedom"), [(level, freedom) for level, row in TABLE.items() for freedom in row])
def test_student_t_quantile_is_the_tabled_one(level: float, freedom: int) -> None:
    assert student_t_quantile(level, freedom) == pytest.approx(TABLE[level][freedom], abs=6e-4)


def test_student_t_quantile_has_closed_forms_at_one_and_two_degrees() -> None:
    for level in (0.1, 0.5, 0.8, 0.95, 0.999):
        assert student_t_quantile(level, 1) == pytest.approx(math.tan(math.pi * level / 2), rel=1e-9)
        assert student_t_quantile(level, 2) == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_the_sum_and_the_expansion_meet(level: float) -> None:
    exact, expanded = student_t_quantile(level, 200), student_t_quantile(level, 201)
    # dt/dfreedom is about -(z^3 + z) / (4 freedom^2); what remains is the expansion's error.
    slope = (exact**3 + exact) / (4 * 200.5**2)
    assert exact - expanded == pytest.approx(slope, rel=0.05, abs=1e-8)
    assert student_t_quantile(0.95, 10**7) == pytest.approx(1.959964, abs=1e-6)


def test_mean_interval_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.n == 5
    assert found.high - found.mean == pytest.approx(2.776445 * math.sqrt(2.5) / math.sqrt(5), abs=1e-5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_paired_interval_is_narrow_where_items_differ_more_than_the_change() -> None:
    before = np.linspace(0, 100, 50)
    after = before + 1 + 0.1 * np.sin(np.arange(50))
    paired = paired_interval(before, after)
    assert paired.low > 0.9
    assert paired.high < 1.1
    assert mean_interval(after).low < mean_interval(before).mean


def test_proportion_interval_is_wilsons() -> None:
    # p = 1/2: middle 1/2, reach z / (2 sqrt(n + z^2)).
    z = 1.959963984540054
    half = proportion_interval(10, 20)
    assert half.high - 0.5 == pytest.approx(z / (2 * math.sqrt(20 + z * z)), abs=1e-12)
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        found = proportion_interval(successes, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
        mirrored = proportion_interval(n - successes, n)
        assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=6e-5)


def test_intervals_cover_what_they_promise() -> None:
    draw = np.random.default_rng(0)
    means = [mean_interval(row) for row in draw.normal(3.0, 2.0, (2000, 8))]
    assert 0.93 <= np.mean([i.low <= 3.0 <= i.high for i in means]) <= 0.97
    skewed = [mean_interval(row) for row in draw.beta(2, 4, (2000, 256))]
    assert 0.93 <= np.mean([i.low <= 1 / 3 <= i.high for i in skewed]) <= 0.97
    shares = [proportion_interval(int(k), 60) for k in draw.binomial(60, 0.8, 2000)]
    assert 0.93 <= np.mean([i.low <= 0.8 <= i.high for i in shares]) <= 0.97
    narrower = [mean_interval(row, level=0.8) for row in draw.normal(0.0, 1.0, (2000, 5))]
    assert 0.78 <= np.mean([i.low <= 0.0 <= i.high for i in narrower]) <= 0.82 + 0.01


def test_what_cannot_be_known_is_not_claimed() -> None:
    assert (mean_interval([2.0]).low, mean_interval([2.0]).high) == (-math.inf, math.inf)
    assert math.isnan(mean_interval([1.0, math.nan]).mean)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])
    with pytest.raises(ValueError, match="2 before and 1 after"):
        paired_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="5 of 4"):
        proportion_interval(5, 4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0, 2.0], level=95)
