"""Plots: what is drawn is where the numbers say, and nothing in a label can act."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from rlhf_lightning.report import plots
from rlhf_lightning.report.report import Curve, Level, Metric, Series
from rlhf_lightning.statistics.intervals import Interval


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def with_class(svg: str, name: str) -> list[ElementTree.Element]:
    return [element for element in parsed(svg).iter() if name in element.get("class", "").split()]


def points(element: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", element.get("d", ""))]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12.1), (0.9981, 0.9992), (1, 60), (0, 12345), (-2e-7, 3e-7), (1e9, 5e9)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    found = plots.ticks(low, high)
    assert 2 <= len(found) <= 6
    steps = {round(b - a, 12) for a, b in itertools.pairwise(found)}
    step = found[1] - found[0]
    assert max(steps) - min(steps) <= 1e-6 * step
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - round_number) for round_number in (1, 2, 5, 10)) < 1e-6
    assert low - 1e-9 * step <= found[0] <= found[-1] <= high + 1e-9 * abs(high)
    assert len(set(plots.tick_labels(found))) == len(found)


def test_whole_numbers_get_whole_ticks() -> None:
    assert plots.ticks(0.9, 3.1, 6, integers=True) == [1, 2, 3]
    assert plots.tick_labels([0, 2000, 4000]) == ["0", "2,000", "4,000"]
    assert plots.tick_labels([-0.5, 0.0, 0.5]) == ["−0.5", "0.0", "0.5"]


def test_points_lie_where_the_axes_say() -> None:
    svg = plots.line_chart(Curve("score", "update", "", [Series("a", [0, 5, 10], [0.0, 1.0, 0.25])]))
    (line,) = with_class(svg, "line")
    drawn = points(line)
    labels = {(e.text or "").replace("−", "-"): float(e.get("y", "0")) - 4 for e in with_class(svg, "end")}
    zero, one = labels["0.0"], labels["1.0"]
    heights = [(zero - y) / (zero - one) for _, y in drawn]
    assert heights == pytest.approx([0.0, 1.0, 0.25], abs=0.005)
    assert drawn[1][0] - drawn[0][0] == pytest.approx(drawn[2][0] - drawn[1][0], abs=0.15)


def test_a_percentage_is_drawn_in_percent() -> None:
    curve = Curve("accuracy", "round", "%", [Series("a", [1, 2], [0.5, 0.9], [0.4, 0.8], [0.6, 0.95])], levels=[Level("ceiling", 0.97)])
    svg = plots.line_chart(curve)
    assert {"40", "60", "80"} <= {e.text for e in with_class(svg, "end")}
    assert "a: 90 (80 to 95) %" in svg
    assert len(with_class(svg, "whiskers")) == 2
    assert len(with_class(svg, "level")) == 1


def test_values_that_are_not_finite_leave_gaps_and_break_nothing() -> None:
    curve = Curve("loss", "update", "", [Series("a", [1, 2, 3, 4, 5], [1.0, math.nan, 2.0, math.inf, 3.0])])
    svg = plots.line_chart(curve)
    (line,) = with_class(svg, "line")
    assert line.get("d", "").count("M") == 3
    assert "nan" not in svg.lower()
    assert "inf" not in svg.lower()
    for hopeless in ([math.nan, math.nan], [1e308, -1e308]):
        assert "no finite value" in plots.line_chart(Curve("loss", "update", "", [Series("a", [1, 2], hopeless)]))


@pytest.mark.parametrize("ys", [[0.0], [7.0, 7.0], [1e-12, 1e-12], [-1e6, -1e6 + 1e-9], []])
def test_flat_short_and_empty_series_are_drawn(ys: list[float]) -> None:
    svg = plots.line_chart(Curve("c", "update", "", [Series("a", [float(i) for i in range(len(ys))], ys)]))
    assert not re.search(r"nan|inf\b", svg.lower().replace("no finite", ""))
    assert len(with_class(svg, "dot")) == 2 * len(ys)  # one drawn, one that shows on hover


def test_a_long_series_keeps_its_extremes() -> None:
    ys = [0.0] * 5000
    ys[3333] = 50.0
    curve = Curve("spike", "update", "", [Series("a", [float(i) for i in range(5000)], ys)])
    svg = plots.line_chart(curve)
    assert plots.points_per_mark(curve) == 42
    assert len(with_class(svg, "answer")) <= plots.MAX_POINTS
    assert "(0 to 50)" in svg
    assert "highest 50" in plots.describe(curve)
    assert len(svg) < 60_000


def test_each_x_answers_with_every_series() -> None:
    svg = plots.line_chart(Curve("loss", "epoch", "nats", [Series("training", [1, 2], [3.0, 2.0]), Series("held out", [2], [2.5])]))
    titles = [e.text for e in parsed(svg).iter("title")]
    assert titles == ["epoch 1\ntraining: 3 nats", "epoch 2\ntraining: 2 nats\nheld out: 2.5 nats"]


def test_labels_are_text() -> None:
    bad = "</svg><script>alert(1)</script>\"' onload=x"
    curve = Curve(bad, bad, bad, [Series(bad, [1, 2], [1.0, 2.0])], levels=[Level(bad, 1.5)], marks=[Level(bad, 1.5)])
    svg = plots.line_chart(curve)
    assert "<script" not in svg
    assert {element.tag for element in parsed(svg).iter()} <= {
        "svg",
        "g",
        "line",
        "text",
        "path",
        "circle",
        "rect",
        "title",
        "polygon",
    }
    assert parsed(svg).get("onload") is None
    assert "style=" not in svg


def test_strip_shows_before_after_and_ceiling_on_one_scale() -> None:
    metric = Metric(label="u", before=Interval(0.3, 0.2, 0.4, 9), after=Interval(0.6, 0.5, 0.7, 9), ceiling=0.8)
    svg = plots.interval_strip(metric)
    before, after = (float(with_class(svg, name)[-1].get("cx", "nan")) for name in ("before", "after"))
    (ceiling,) = with_class(svg, "level")
    assert (float(ceiling.get("x1", "nan")) - after) / (after - before) == pytest.approx(2 / 3, abs=0.01)
    assert plots.interval_strip(Metric(label="u", before=0.3, after=0.6)) == ""
    assert plots.interval_strip(Metric(label="u", after=Interval(0.3, -math.inf, math.inf, 1))) == ""


def test_share_bar_is_clipped() -> None:
    widths = [float(with_class(plots.share_bar(share), "filled")[0].get("width", "nan")) for share in (0.25, 7.0, -1.0, math.nan)]
    assert widths == [50.0, 200.0, 0.0, 0.0]
