"""Intervals against tables, closed forms and their own promise."""

import math

import numpy as np
import pytest

from rlhf_lightning.statistics.intervals import (
    clustered_mean_interval,
    clustered_proportion_interval,
    correlation_interval,
    mean_interval,
    paired_interval,
    proportion_interval,
    student_t_quantile,
)

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


def test_student_t_quantile_becomes_the_normal_one() -> None:
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


def test_each_value_a_cluster_of_its_own_is_no_cluster_at_all() -> None:
    values, apart = np.random.default_rng(0).normal(size=17), np.arange(17)
    ours, plain = clustered_mean_interval(values, apart), mean_interval(values)
    assert (ours.mean, ours.low, ours.high, ours.n) == pytest.approx((plain.mean, plain.low, plain.high, plain.n))
    assert clustered_proportion_interval(values > 0, apart) == proportion_interval(int((values > 0).sum()), 17)


def test_a_cluster_of_equal_values_counts_as_few() -> None:
    """Twenty values, each four times: the interval of the twenty."""
    values = np.random.default_rng(1).normal(size=20)
    ours, once = clustered_mean_interval(np.repeat(values, 4), np.repeat(np.arange(20), 4)), mean_interval(values)
    assert (ours.low, ours.high) == pytest.approx((once.low, once.high))
    assert ours.n == 80
    right = clustered_proportion_interval(np.repeat(values > 0, 4), np.repeat(np.arange(20), 4))
    narrow, wide = proportion_interval(4 * int((values > 0).sum()), 80), proportion_interval(int((values > 0).sum()), 20)
    assert right.low < wide.low < narrow.low < right.mean < narrow.high < wide.high < right.high
    assert clustered_proportion_interval(np.ones(80), np.repeat(np.arange(20), 4)).low == proportion_interval(20, 20).low
    assert clustered_proportion_interval(np.zeros(80), np.zeros(80)).high == proportion_interval(0, 1).high


def test_one_cluster_says_nothing_about_the_spread() -> None:
    found = clustered_mean_interval([1.0, 2.0], [7, 7])
    assert (found.mean, found.low, found.high) == (1.5, -math.inf, math.inf)


def test_clustered_intervals_cover_the_truth_where_plain_ones_do_not() -> None:
    """Prompts of 1 to 9 comparisons whose chance of being right differs between prompts: Beta(3.5, 1.5), mean 0.7."""
    rng, times = np.random.default_rng(3), 800
    inside = np.zeros((times, 3))
    for row in inside:
        sizes = rng.integers(1, 10, 40)
        clusters = np.repeat(np.arange(40), sizes)
        right = rng.random(len(clusters)) < rng.beta(3.5, 1.5, 40)[clusters]
        intervals = (
            clustered_proportion_interval(right, clusters),
            clustered_mean_interval(right, clusters),
            proportion_interval(int(right.sum()), len(right)),
        )
        row[:] = [one.low <= 0.7 <= one.high for one in intervals]
    clustered, mean, plain = inside.mean(0)
    assert 0.93 < clustered < 0.98
    assert 0.92 < mean < 0.98
    assert plain < 0.88


def test_a_cluster_for_each_value_is_required() -> None:
    with pytest.raises(ValueError, match="3 values need a cluster each, not 2"):
        clustered_mean_interval([1.0, 2.0, 3.0], [0, 1])
    with pytest.raises(ValueError, match="outcomes lie between 0 and 1"):
        clustered_proportion_interval([0.0, 2.0], [0, 1])
    with pytest.raises(ValueError, match="at least one value"):
        clustered_proportion_interval([], [])


def test_the_interval_of_a_rank_correlation_covers_the_truth() -> None:
    """Spearman's of a normal pair with Pearson's 0.6 is (6 / pi) asin(0.3)."""
    stats = pytest.importorskip("scipy.stats")
    rng, truth, times = np.random.default_rng(0), 6 / math.pi * math.asin(0.3), 600
    inside = 0
    for _ in range(times):
        x, noise = rng.normal(size=(2, 60))
        found = correlation_interval(float(stats.spearmanr(x, 0.6 * x + 0.8 * noise).statistic), 60)
        inside += found.low <= truth <= found.high
    assert inside / times == pytest.approx(0.95, abs=0.025)
    assert (correlation_interval(0.5, 3).low, correlation_interval(0.5, 3).high) == (-1, 1)
    assert correlation_interval(1.0, 10).high <= 1
