"""Plots of the report as inline SVG: pure functions from the report's records to markup, without scripts or style attributes.

Colours, fonts and the look of a hover are the page's style sheet's, by class. Pixels are those of the drawing, which scales with the page.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from rlhf_lightning.report.report import Curve, Metric, Series
from rlhf_lightning.statistics.intervals import Interval

WIDTH, HEIGHT = 440.0, 230.0
POINTS = 120
"""A line of more points is drawn as the mean, lowest and highest of equal buckets: no screen shows more, and pages stay small."""
COLOURS = 5


def line_chart(curve: Curve) -> Markup:
    """The curve's lines over labelled axes; each x answers to the mouse with its values."""
    lines = [_thinned(series, _factor(curve.unit)) for series in curve.series]
    frame = _framed(curve, lines)
    parts = [*_axes(curve, frame), *_references(curve, frame)]
    for index, line in enumerate(lines):
        parts += _drawn(line, index % COLOURS, frame)
    parts += _answers(curve, lines, frame)
    return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=describe(curve), class_="plot")


def describe(curve: Curve) -> str:
    """The plot in words, for those who can't see it: each line's first, last, lowest and highest value."""
    words = [f"{curve.name}{f' ({curve.unit})' if curve.unit else ''} by {curve.x_label}."]
    for series in curve.series:
        points = [(x, y * _factor(curve.unit)) for x, y in zip(series.xs, series.ys, strict=True) if _drawable(x, y)]
        if not points:
            words.append(f"{series.label}: no finite value.")
            continue
        (x0, y0), (x1, y1), ys = points[0], points[-1], [y for _, y in points]
        words.append(f"{series.label}: {y0:.4g} at {x0:g}, {y1:.4g} at {x1:g}; lowest {min(ys):.4g}, highest {max(ys):.4g}.")
    return " ".join(words)


def interval_strip(metric: Metric) -> Markup:
    """A small drawing of before and after with their intervals on one scale, and the ceiling as a line; empty without an interval."""
    rows = [(name, value) for name, value in (("before", metric.before), ("after", metric.after)) if value is not None]
    reach = [number * metric.factor for _, value in rows for number in _reach(value)]
    reach += [metric.ceiling * metric.factor] if metric.ceiling is not None else []
    if not all(_drawable(number) for number in reach) or not any(isinstance(value, Interval) for _, value in rows):
        return Markup("")
    frame = _Frame(10, 210, 2, 36, *widened(min(reach), max(reach), 0.08), 0, 1)
    places = ticks(frame.x_low, frame.x_high, 4)
    parts = [segment(frame.left, frame.bottom, frame.right, frame.bottom, "grid")]
    for place, label in zip(places, tick_labels(places), strict=True):
        parts.append(segment(frame.x(place), frame.bottom - 2, frame.x(place), frame.bottom + 2, "axis"))
        parts.append(element("text", label, x=frame.x(place), y=frame.bottom + 13))
    if metric.ceiling is not None:
        parts.append(segment(frame.x(reach[-1]), frame.top, frame.x(reach[-1]), frame.bottom, "level", title="ceiling"))
    for index, (name, value) in enumerate(rows):
        y = 18.0 if len(rows) == 1 else 10.0 + 15 * index
        xs = [frame.x(number * metric.factor) for number in _reach(value)]
        parts.append(segment(min(xs), y, max(xs), y, f"whisker {name}"))
        parts.append(element("circle", cx=xs[0], cy=y, r=4.5, class_=name))
    return element("svg", *parts, viewBox="0 0 220 52", aria_hidden="true", class_="strip")


def share_bar(share: float) -> Markup:
    """A bar as long as a share of 1."""
    width = 200 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    track = element("rect", x=0, y=2, width=200, height=8, rx=2, class_="track")
    filled = element("rect", x=0, y=2, width=width, height=8, rx=2, class_="filled")
    return element("svg", track, filled, viewBox="0 0 200 12", preserveAspectRatio="none", aria_hidden="true", class_="bar")


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from low to high, 1, 2 or 5 times a power of ten apart (whole: at least 1), about `most` of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The ticks as text, with the decimals that tell them apart; very large and very small ones in powers of ten."""
    step = abs(values[1] - values[0]) if len(values) > 1 else max(abs(values[0]), 1.0)
    if step < 1e-4 or max(map(abs, values)) >= 1e7:
        return [f"{value:.3g}".replace("-", "−", 1) if value < 0 else f"{value:.3g}" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value + 0.0:,.{decimals}f}".replace("-", "−") for value in values]


@dataclass(frozen=True)
class _Frame:
    """The rectangle of the data in the drawing, and how data become pixels."""

    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    rows: tuple[float, ...] = ()

    def x(self, value: float) -> float:
        return self.left + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)


def _framed(curve: Curve, lines: Sequence[Series]) -> _Frame:
    factor = _factor(curve.unit)
    xs = [x for line in lines for x in line.xs if _drawable(x)]
    ys = [y for line in lines for y in [*line.ys, *line.lows, *line.highs] if _drawable(y)]
    ys += [level.at * factor for level in curve.levels if _drawable(level.at)] if ys else []
    x_low, x_high = widened(min(xs, default=0.0), max(xs, default=1.0), 0.06 if len(set(xs)) < 12 else 0.01)
    y_low, y_high = widened(min(ys, default=0.0), max(ys, default=1.0), 0.04)
    # Near zero the axis starts there: a KL that grows from nothing should look so.
    if 0 <= min(ys, default=0.0) < 0.4 * (y_high - y_low):
        y_low = 0.0
    marks = ticks(y_low, y_high, 6)
    step = marks[1] - marks[0]
    rows = tuple(i * step for i in range(math.floor(y_low / step + 1e-9), math.ceil(y_high / step - 1e-9) + 1))
    left = 14 + 7.5 * max(map(len, tick_labels(rows)))
    return _Frame(left, WIDTH - 10, 34, HEIGHT - 40, x_low, x_high, rows[0], rows[-1], rows)


def _axes(curve: Curve, frame: _Frame) -> Iterable[Markup]:
    for value, label in zip(frame.rows, tick_labels(frame.rows), strict=True):
        yield segment(frame.left, frame.y(value), frame.right, frame.y(value), "grid")
        yield element("text", label, x=frame.left - 6, y=frame.y(value) + 4, class_="end")
    whole = all(x == round(x) for series in curve.series for x in series.xs if _drawable(x))
    columns = ticks(frame.x_low, frame.x_high, 6, whole)
    for value, label in zip(columns, tick_labels(columns) if columns else [], strict=True):
        yield segment(frame.x(value), frame.bottom, frame.x(value), frame.bottom + 4, "axis")
        yield element("text", label, x=frame.x(value), y=frame.bottom + 17, class_="middle")
    yield segment(frame.left, frame.bottom, frame.right, frame.bottom, "axis")
    yield element("text", curve.x_label, x=(frame.left + frame.right) / 2, y=HEIGHT - 6, class_="middle name")
    yield element("text", curve.unit, x=4, y=14, class_="name")
    if not any(_drawable(x, y) for series in curve.series for x, y in zip(series.xs, series.ys, strict=True)):
        yield element("text", "no finite value", x=(frame.left + frame.right) / 2, y=(frame.top + frame.bottom) / 2, class_="middle name")


def _references(curve: Curve, frame: _Frame) -> Iterable[Markup]:
    for level in curve.levels:
        if _drawable(level.at):
            y = frame.y(level.at * _factor(curve.unit))
            yield segment(frame.left, y, frame.right, y, "level")
            yield element("text", level.label, x=frame.right - 2, y=y - 5 if y > frame.top + 12 else y + 13, class_="end said")
    free = -math.inf
    for mark in curve.marks:
        x = frame.x(mark.at)
        if _drawable(mark.at) and frame.left <= x <= frame.right:
            yield segment(x, frame.top - 6, x, frame.bottom, "mark", title=mark.label)
            if x >= free and x + 7.5 * len(mark.label) < frame.right:
                yield element("text", mark.label, x=x + 4, y=frame.top - 4, class_="said")
                free = x + 7.5 * len(mark.label) + 10


def _drawn(line: Series, colour: int, frame: _Frame) -> Iterable[Markup]:
    """The line with gaps where it has no finite value; dots where points are few; whiskers or a band for its bounds."""
    points = [(frame.x(x), frame.y(y)) if _drawable(x, y) else None for x, y in zip(line.xs, line.ys, strict=True)]
    sparse = len(points) <= 30
    bounds = [
        (frame.x(x), frame.y(low), frame.y(high))
        for x, low, high in zip(line.xs if line.lows else [], line.lows, line.highs, strict=True)
        if _drawable(x, low, high)
    ]
    if bounds and not sparse:
        outline = [f"{x:.1f},{high:.1f}" for x, _, high in bounds] + [f"{x:.1f},{low:.1f}" for x, low, _ in reversed(bounds)]
        yield element("polygon", points=" ".join(outline), class_=f"band c{colour}")
    elif bounds:
        for x, low, high in bounds:
            path = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
            yield element("path", d=path, class_=f"whiskers c{colour}")
    path, lifted = "", True
    for index, point in enumerate(points):
        if point is None:
            lifted = True
            continue
        path += f"{'M' if lifted else 'L'}{point[0]:.1f} {point[1]:.1f}"
        alone = lifted and points[index + 1 : index + 2] in ([], [None])
        lifted = False
        if sparse or alone:
            yield element("circle", cx=point[0], cy=point[1], r=3, class_=f"dot c{colour}")
    if path:
        yield element("path", d=path, class_=f"line c{colour}")


def _answers(curve: Curve, lines: Sequence[Series], frame: _Frame) -> Iterable[Markup]:
    """An invisible column at each x that says its values on hover and marks them."""
    found: dict[float, list[tuple[int, Series, int]]] = {}
    for index, line in enumerate(lines):
        for place, (x, y) in enumerate(zip(line.xs, line.ys, strict=True)):
            if _drawable(x, y):
                found.setdefault(x, []).append((index, line, place))
    xs = sorted(found)
    edges = [frame.left, *(frame.x((a + b) / 2) for a, b in itertools.pairwise(xs)), frame.right]
    for x, (left, right) in zip(xs, itertools.pairwise(edges), strict=False):
        says, dots = [f"{curve.x_label} {x:,g}"], []
        for index, line, place in found[x]:
            says.append(f"{line.label}: {_said(line, place)}{f' {curve.unit}' if curve.unit else ''}")
            dots.append(element("circle", cx=frame.x(x), cy=frame.y(line.ys[place]), r=4, class_=f"dot c{index % COLOURS}"))
        area = element("rect", x=left, y=frame.top, width=max(right - left, 0.1), height=frame.bottom - frame.top)
        guide = segment(frame.x(x), frame.top, frame.x(x), frame.bottom, "guide")
        yield element("g", element("title", "\n".join(says)), area, guide, *dots, class_="answer")


def _said(line: Series, place: int) -> str:
    text = f"{line.ys[place]:.4g}"
    return f"{text} ({line.lows[place]:.4g} to {line.highs[place]:.4g})" if line.lows else text


def _thinned(series: Series, factor: float) -> Series:
    """The series in shown units, of at most POINTS points: beyond, buckets of equal count with their mean, lowest and highest."""
    ys, lows, highs = ([factor * value for value in values] for values in (series.ys, series.lows, series.highs))
    size = math.ceil(len(ys) / POINTS)
    if size <= 1:
        return Series(series.label, series.xs, ys, lows, highs)
    points: list[tuple[float, float, float, float]] = []
    for start in range(0, len(ys), size):
        chunk = range(start, min(start + size, len(ys)))
        kept = [i for i in chunk if _drawable(ys[i])]
        mean = sum(ys[i] for i in kept) / len(kept) if kept else math.nan
        low = min(((lows or ys)[i] for i in kept), default=math.nan)
        points.append((series.xs[chunk[len(chunk) // 2]], mean, low, max(((highs or ys)[i] for i in kept), default=math.nan)))
    return Series(series.label, *map(list, zip(*points, strict=True)))


def thinning(curve: Curve) -> int:
    """How many neighbours each drawn point of the longest line stands for; 1 where every point is drawn."""
    return max((math.ceil(len(series.xs) / POINTS) for series in curve.series), default=1) or 1


def _factor(unit: str) -> float:
    return 100.0 if unit == "%" else 1.0


def _reach(value: Interval | float) -> tuple[float, ...]:
    return (value.mean, value.low, value.high) if isinstance(value, Interval) else (value,)


def _drawable(*numbers: float) -> bool:
    """Finite and within what floats can scale: a diverged run must not break the page that shows it."""
    return all(abs(number) < 1e30 for number in numbers)


def widened(low: float, high: float, by: float) -> tuple[float, float]:
    """A range with a share of its length added at both ends, so that no point lies on the edge; some length where it has none."""
    margin = (high - low) * by
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        margin = max(abs(low), abs(high)) * 0.1 or 0.5
    return low - margin, high + margin


def segment(x1: float, y1: float, x2: float, y2: float, class_: str, title: str = "") -> Markup:
    """A straight line, with what it says on hover."""
    return element("line", *([element("title", title)] if title else []), x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def element(name: str, *content: str, **attributes: object) -> Markup:
    """An element; content and attributes are escaped unless they are Markup. aria_label stands for aria-label, class_ for class."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.1f}" if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
    )
    inside = "".join(map(escape, content))
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")
