"""From a reward model's held-out measurements to metrics, plot, tables and notes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rlhf_lightning.report.reward import (
    held_out_notes,
    held_out_tables,
    models_tables,
    reliability_curve,
    reward_metrics,
    reward_model_metrics,
)
from rlhf_lightning.reward.evaluation.held_out import HeldOut, LengthBias, calibration
from rlhf_lightning.reward.evaluation.measure import RewardAgreement
from rlhf_lightning.statistics.intervals import Interval, mean_interval, proportion_interval

NO_LENGTH = LengthBias(None, None, None, None, None, None, "ratings")
NOTHING = HeldOut({}, {}, None, None, None, None, None, None, NO_LENGTH, 0.0)
ACCURACY = {"pair": proportion_interval(3, 4), "all": proportion_interval(70, 100), "edit": proportion_interval(67, 96)}
RHO = Interval(0.4, 0.3, 0.5, 50)


def sure(factor: float = 1.0):
    differences = np.random.default_rng(0).normal(size=100) * factor + 1
    return calibration(differences, np.arange(100))


def test_accuracy_comes_first_over_all_and_then_by_kind():
    found = dataclasses.replace(NOTHING, accuracy=ACCURACY, spearman=RHO, kendall=RHO, auc=RHO, calibration=sure())
    metrics = reward_metrics(found, ceiling=0.9)
    assert [metric.label for metric in metrics] == [
        "Reward-model accuracy",
        "Reward-model accuracy, edits",
        "Reward-model accuracy, pairs",
        "Rank correlation with held-out rankings",
        "Rank correlation with held-out ratings",
        "Thumbs up above thumbs down",
        "Calibration error",
    ]
    assert [metric.after for metric in metrics[:3]] == [ACCURACY["all"], ACCURACY["edit"], ACCURACY["pair"]]
    assert [metric.ceiling for metric in metrics] == [0.9] + [None] * 6
    assert [metric.headline for metric in metrics] == [True] + [False] * 6
    assert (metrics[0].note, metrics[0].unit) == ("100 held-out comparisons", "%")
    assert (metrics[-1].after, metrics[-1].better) == (found.calibration.ece, "lower")
    assert metrics[-1].note == f"{100 * found.calibration.ece_by_chance:.1f} % by chance with so few"


def test_one_kind_alone_is_not_shown_twice():
    (metric,) = reward_metrics(dataclasses.replace(NOTHING, accuracy={name: ACCURACY["pair"] for name in ("all", "pair")}))
    assert (metric.label, metric.after) == ("Reward-model accuracy", ACCURACY["pair"])


def test_ratings_alone_make_the_correlation_the_headline():
    (metric,) = reward_metrics(dataclasses.replace(NOTHING, spearman=RHO))
    assert (metric.after, metric.headline) == (RHO, True)


def test_nothing_measured_shows_nothing():
    assert (reward_metrics(NOTHING), reliability_curve({"m": NOTHING}), held_out_tables(NOTHING), held_out_notes(NOTHING)) == (
        [],
        [],
        [],
        [],
    )


def test_the_reliability_plot_stands_beside_the_diagonal():
    found = dataclasses.replace(NOTHING, calibration=sure())
    (curve,) = reliability_curve({"model": found, "empty": NOTHING, "other": found})
    assert [line.label for line in curve.series] == ["model", "other", "calibrated"]
    line, diagonal = curve.series[0], curve.series[-1]
    bins = found.calibration.bins
    assert line.xs == [100 * one.stated for one in bins]
    assert (line.ys, line.lows, line.highs) == (
        [one.right.mean for one in bins],
        [one.right.low for one in bins],
        [one.right.high for one in bins],
    )
    assert [y * 100 for y in diagonal.ys] == diagonal.xs
    assert curve.unit == "%"


def test_the_tables_hold_sources_length_and_calibration():
    sources = {"b": proportion_interval(1, 2), "a": proportion_interval(30, 40)}
    length = LengthBias(ACCURACY["pair"], None, ACCURACY["all"], None, RHO, None, "ratings")
    found = dataclasses.replace(NOTHING, by_source=sources, length=length, calibration=sure())
    by_source, by_length, odds = held_out_tables(found)
    assert by_source.rows == [
        ["a", 75, pytest.approx(100 * sources["a"].low), pytest.approx(100 * sources["a"].high), 40],
        by_source.rows[1],
    ]
    assert [row[0] for row in by_length.rows] == [
        "accuracy where the better response is longer", "the longer response was judged better", "Spearman of score and length",
    ]  # fmt: skip
    assert by_length.rows[-1] == ["Spearman of score and length", 0.4, 0.3, 0.5, 50]
    assert [row[1] for row in odds.rows] == [found.calibration.ece, found.calibration.brier, found.calibration.nll]
    (alone,) = held_out_tables(dataclasses.replace(NOTHING, by_source={"a": sources["a"]}, calibration=sure()))
    assert alone.title == "Calibration", "one data set needs no table"


def test_what_makes_a_model_doubtful_is_reported():
    people, model = proportion_interval(60, 100), proportion_interval(85, 100)
    length = dataclasses.replace(NO_LENGTH, people=people, model=model)
    notes = held_out_notes(dataclasses.replace(NOTHING, batch_change=0.01, tied=0.5, length=length))
    assert [note.split(" ")[0] for note in notes] == ["a", "50.0", "the"]
    assert "0.01 standard deviations" in notes[0]
    assert "in 85 % of the comparisons, people in 60 %" in notes[2]
    fine = dataclasses.replace(NO_LENGTH, people=people, model=proportion_interval(66, 100))
    assert held_out_notes(dataclasses.replace(NOTHING, batch_change=1e-6, tied=0.01, length=fine)) == []


def test_models_stand_side_by_side():
    one = dataclasses.replace(NOTHING, accuracy=ACCURACY, calibration=sure(), kendall=RHO)
    other = dataclasses.replace(NOTHING, accuracy={"all": proportion_interval(80, 100)}, spearman=RHO)
    (metric,) = reward_model_metrics({"one": one, "other": other})
    over = mean_interval([0.7, 0.8])
    assert metric.after == over.mean
    assert metric.note == f"95 % interval over the models: {100 * over.low:.1f} to {100 * over.high:.1f}"
    side, agree = models_tables({"one": one, "other": other}, [RewardAgreement("one", "other", 0.9, 0.8, None, 12)])
    assert side.rows[0] == ["one", 0.7, ACCURACY["all"].low, ACCURACY["all"].high, one.calibration.ece, 0.4, None, None, None, None]
    assert side.rows[1][5:7] == [None, 0.4]
    assert agree.rows == [["one", "other", 0.9, 0.8, None, 12]]
    assert len(models_tables({"one": one}, [])) == 1
