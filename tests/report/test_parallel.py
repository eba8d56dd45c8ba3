"""Parallel coordinates: values stand where they lie on their axes, and lines say what they are."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.report.parallel import Axis, parallel_coordinates


def test_words_stand_below_each_other_in_their_order():
    axis = Axis("advantage", ["gae", "rloo", "gae", "grpo"])
    assert axis.marks() == [("gae", 1.0), ("rloo", 0.5), ("grpo", 0.0)]
    assert Axis("a", ["x", "x"]).marks() == [("x", 0.5)]


def test_learning_rates_stand_by_their_logarithms():
    axis = Axis("rate", ["1e-5", "1e-4", "1e-3"])
    low, middle, high = (axis.position(value) for value in axis.values)
    assert axis.is_logarithmic
    assert middle - low == pytest.approx(high - middle)
    assert [label for label, _ in axis.marks()] == ["1e-5", "1e-4", "1e-3"]
    many = Axis("rate", [str(1e-5 * 1.5**power) for power in range(16)])
    assert [label for label, _ in many.marks()] == ["1e-05", "3e-05", "0.0001", "0.0003", "0.001", "0.003"]
    assert all(0 <= position <= 1 for _, position in many.marks())
    assert not Axis("epochs", ["1", "2", "8"]).is_logarithmic
    assert not Axis("epochs", ["0", "100"]).is_logarithmic


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_numbers_keep_their_order_and_stay_on_the_axis(numbers):
    axis = Axis("x", [str(number) for number in numbers])
    positions = [axis.position(value) for value in axis.values]
    assert all(0 <= position <= 1 for position in positions)
    ranked = sorted(range(len(numbers)), key=numbers.__getitem__)
    assert all(positions[a] <= positions[b] + 1e-9 for a, b in itertools.pairwise(ranked))
    assert all(math.isfinite(position) and label for label, position in axis.marks())


def test_few_numbers_are_their_own_labels_and_many_have_round_ones():
    assert [label for label, _ in Axis("coef", ["0.05", "0.1", "0.05"]).marks()] == ["0.05", "0.1"]
    many = Axis("score", [str(number / 7) for number in range(15)])
    assert [label for label, _ in many.marks()] == ["0.0", "0.5", "1.0", "1.5", "2.0"]
    assert dict(many.marks())["1.0"] == pytest.approx(0.5)


def test_lines_run_through_their_values_and_the_best_is_the_darkest():
    axes = [Axis("a", ["1", "2", "3"]), Axis("objective", ["0.1", "0.5", "0.9"])]
    drawing = parallel_coordinates(axes, ["job 0", "job 1", "job <2>"])
    assert re.findall(r"<title>(.*?)</title>", drawing) == ["job 0", "job 1", "job &lt;2&gt;"]
    assert re.findall(r'class="job (s\d)"', drawing) == ["s0", "s2", "s4"]
    first = re.findall(r'points="([^"]+)" class="job', drawing)[0]
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in first.split())
    assert x1 - x0 == 150
    assert y0 == y1 == pytest.approx(270 - 230 * axes[0].position("1"), abs=0.06)


def test_axes_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="a value for every line"):
        parallel_coordinates([Axis("a", ["1"])], ["x", "y"])
    with pytest.raises(ValueError, match="a value for every line"):
        parallel_coordinates([], [])
