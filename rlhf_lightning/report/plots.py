"""Plots of the report as inline SVG, without scripts or style attributes.

The page's style sheet sets colours, fonts and hover effects by class. Pixels are those of the drawing, which scales with the page.
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
MAX_POINTS = 120
"""Longer lines are downsampled to the mean, minimum and maximum of equal buckets."""
COLOURS = 5


def line_chart(curve: Curve) -> Markup:
    """Draw the curve's lines over labelled axes, with the values of each x on hover."""
    lines = [_downsample(series, factor_of(curve.unit)) for series in curve.series]
    frame = _frame(curve, lines)
    parts = [*_axes(curve, frame), *_references(curve, frame)]
    for index, line in enumerate(lines):
        parts += _line_marks(line, index % COLOURS, frame)
    parts += _hover_areas(curve, lines, frame)
    return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=describe(curve), class_="plot")


def describe(curve: Curve) -> str:
    """Describe the plot in words, for screen readers: each line's first, last, lowest and highest value."""
    words = [f"{curve.name}{f' ({curve.unit})' if curve.unit else ''} by {curve.x_label}."]
    for series in curve.series:
        points = [(x, y * factor_of(curve.unit)) for x, y in zip(series.xs, series.ys, strict=True) if drawable(x, y)]
        if not points:
            words.append(f"{series.label}: no finite value.")
            continue
        (x0, y0), (x1, y1), ys = points[0], points[-1], [y for _, y in points]
        words.append(f"{series.label}: {y0:.3g} at {x0:g}, {y1:.3g} at {x1:g}; lowest {min(ys):.3g}, highest {max(ys):.3g}.")
    return " ".join(words)


def interval_strip(metric: Metric) -> Markup:
    """Draw before and after with their intervals on one scale, and the ceiling; "" without an interval."""
    rows = [(name, value) for name, value in (("before", metric.before), ("after", metric.after)) if value is not None]
    reach = [number * metric.factor for _, value in rows for number in _reach(value)]
    reach += [metric.ceiling * metric.factor] if metric.ceiling is not None else []
    if not all(drawable(number) for number in reach) or not any(isinstance(value, Interval) for _, value in rows):
        return Markup("")
    frame = _Frame(10, 210, 2, 36, *widen_range(min(reach), max(reach), 0.08), 0, 1)
    values = ticks(frame.x_low, frame.x_high, 4)
    parts = [segment(frame.x0, frame.y0, frame.x1, frame.y0, "grid")]
    for tick, label in zip(values, tick_labels(values), strict=True):
        parts.append(segment(frame.x(tick), frame.y0 - 2, frame.x(tick), frame.y0 + 2, "axis"))
        parts.append(element("text", label, x=frame.x(tick), y=frame.y0 + 13))
    if metric.ceiling is not None:
        parts.append(segment(frame.x(reach[-1]), frame.y1, frame.x(reach[-1]), frame.y0, "level", title="ceiling"))
    for index, (name, value) in enumerate(rows):
        y = 18.0 if len(rows) == 1 else 10.0 + 15 * index
        xs = [frame.x(number * metric.factor) for number in _reach(value)]
        parts.append(segment(min(xs), y, max(xs), y, f"whisker {name}"))
        parts.append(element("circle", cx=xs[0], cy=y, r=4.5, class_=name))
    return element("svg", *parts, viewBox="0 0 220 52", aria_hidden="true", class_="strip")


def share_bar(share: float) -> Markup:
    """Draw a fraction as a bar."""
    width = 200 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    track = element("rect", x=0, y=2, width=200, height=8, rx=2, class_="track")
    filled = element("rect", x=0, y=2, width=width, height=8, rx=2, class_="filled")
    return element("svg", track, filled, viewBox="0 0 200 12", preserveAspectRatio="none", aria_hidden="true", class_="bar")


def ticks(low: float, high: float, count: int = 5, integers: bool = False) -> list[float]:
    """About `count` round numbers from low to high, with steps of 1, 2 or 5 times a power of ten.

    Args:
        integers: steps of at least 1.
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    step = max(step, 1.0) if integers else step
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Format ticks with as many decimals as needed, and very large and small ones as powers of ten."""
    step = abs(values[1] - values[0]) if len(values) > 1 else max(abs(values[0]), 1.0)
    if step < 1e-4 or max(map(abs, values)) >= 1e7:
        return [f"{value:.3g}".replace("-", "−", 1) if value < 0 else f"{value:.3g}" for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value + 0.0:,.{decimals}f}".replace("-", "−") for value in values]


@dataclass(frozen=True)
class _Frame:
    """The rectangle of the data in the drawing, and the mapping from data to pixels."""

    x0: float
    x1: float
    y1: float
    y0: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    rows: tuple[float, ...] = ()

    def x(self, value: float) -> float:
        return self.x0 + (value - self.x_low) / (self.x_high - self.x_low) * (self.x1 - self.x0)

    def y(self, value: float) -> float:
        return self.y0 - (value - self.y_low) / (self.y_high - self.y_low) * (self.y0 - self.y1)


def _frame(curve: Curve, lines: Sequence[Series]) -> _Frame:
    factor = factor_of(curve.unit)
    xs = [x for line in lines for x in line.xs if drawable(x)]
    ys = [y for line in lines for y in [*line.ys, *line.lows, *line.highs] if drawable(y)]
    ys += [level.at * factor for level in curve.levels if drawable(level.at)] if ys else []
    x_low, x_high = widen_range(min(xs, default=0.0), max(xs, default=1.0), 0.06 if len(set(xs)) < 12 else 0.01)
    y_low, y_high = widen_range(min(ys, default=0.0), max(ys, default=1.0), 0.04)
    # An axis that starts near zero starts at zero, as for a KL.
    if 0 <= min(ys, default=0.0) < 0.4 * (y_high - y_low):
        y_low = 0.0
    y_low, y_high = limit_range(y_low, y_high, curve, ys)
    marks = ticks(y_low, y_high, 6)
    step = marks[1] - marks[0]
    rows = tuple(i * step for i in range(math.floor(y_low / step + 1e-9), math.ceil(y_high / step - 1e-9) + 1))
    low, high = limit_range(rows[0], rows[-1], curve, ys)
    rows = tuple(row for row in rows if low - 1e-9 * step <= row <= high + 1e-9 * step)
    margin = 14 + 7.5 * max(map(len, tick_labels(rows)))
    return _Frame(margin, WIDTH - 20, 34, HEIGHT - 40, x_low, x_high, min(low, rows[0]), max(high, rows[-1]), rows)


def _axes(curve: Curve, frame: _Frame) -> Iterable[Markup]:
    for value, label in zip(frame.rows, tick_labels(frame.rows), strict=True):
        yield segment(frame.x0, frame.y(value), frame.x1, frame.y(value), "grid")
        yield element("text", label, x=frame.x0 - 6, y=frame.y(value) + 4, class_="end")
    integers = all(x == round(x) for series in curve.series for x in series.xs if drawable(x))
    columns = ticks(frame.x_low, frame.x_high, 6, integers)
    for value, label in zip(columns, tick_labels(columns) if columns else [], strict=True):
        yield segment(frame.x(value), frame.y0, frame.x(value), frame.y0 + 4, "axis")
        yield element("text", label, x=frame.x(value), y=frame.y0 + 17, class_="middle")
    yield segment(frame.x0, frame.y0, frame.x1, frame.y0, "axis")
    yield element("text", curve.x_label, x=(frame.x0 + frame.x1) / 2, y=HEIGHT - 6, class_="middle name")
    yield element("text", curve.unit, x=4, y=14, class_="name")
    if not any(drawable(x, y) for series in curve.series for x, y in zip(series.xs, series.ys, strict=True)):
        yield element("text", "no finite value", x=(frame.x0 + frame.x1) / 2, y=(frame.y1 + frame.y0) / 2, class_="middle name")


def _references(curve: Curve, frame: _Frame) -> Iterable[Markup]:
    for level in curve.levels:
        if drawable(level.at):
            y = frame.y(level.at * factor_of(curve.unit))
            yield segment(frame.x0, y, frame.x1, y, "level")
            yield element("text", level.label, x=frame.x1 - 2, y=y - 5 if y > frame.y1 + 12 else y + 13, class_="end said")
    free = -math.inf
    for mark in curve.marks:
        x = frame.x(mark.at)
        if drawable(mark.at) and frame.x0 <= x <= frame.x1:
            yield segment(x, frame.y1 - 6, x, frame.y0, "mark", title=mark.label)
            if x >= free and x + 7.5 * len(mark.label) < frame.x1:
                yield element("text", mark.label, x=x + 4, y=frame.y1 - 4, class_="mark-label")
                free = x + 7.5 * len(mark.label) + 10


def _line_marks(line: Series, colour: int, frame: _Frame) -> Iterable[Markup]:
    """Draw a line with gaps at non-finite values, dots if sparse, and whiskers or a band for its bounds."""
    points = [(frame.x(x), frame.y(y)) if drawable(x, y) else None for x, y in zip(line.xs, line.ys, strict=True)]
    sparse = len(points) <= 30
    bounds = [
        (frame.x(x), frame.y(low), frame.y(high))
        for x, low, high in zip(line.xs if line.lows else [], line.lows, line.highs, strict=True)
        if drawable(x, low, high)
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
        isolated = lifted and points[index + 1 : index + 2] in ([], [None])
        lifted = False
        if sparse or isolated:
            yield element("circle", cx=point[0], cy=point[1], r=3, class_=f"dot c{colour}")
    if path:
        yield element("path", d=path, class_=f"line c{colour}")


def _hover_areas(curve: Curve, lines: Sequence[Series], frame: _Frame) -> Iterable[Markup]:
    """Draw an invisible column at each x that shows its values on hover."""
    points: dict[float, list[tuple[int, Series, int]]] = {}
    for colour, line in enumerate(lines):
        for index, (x, y) in enumerate(zip(line.xs, line.ys, strict=True)):
            if drawable(x, y):
                points.setdefault(x, []).append((colour, line, index))
    xs = sorted(points)
    edges = [frame.x0, *(frame.x((a + b) / 2) for a, b in itertools.pairwise(xs)), frame.x1]
    for x, (start, end) in zip(xs, itertools.pairwise(edges), strict=False):
        texts, dots = [f"{curve.x_label} {x:,g}"], []
        for colour, line, index in points[x]:
            texts.append(f"{line.label}: {_value_text(line, index)}{f' {curve.unit}' if curve.unit else ''}")
            dots.append(element("circle", cx=frame.x(x), cy=frame.y(line.ys[index]), r=4, class_=f"dot c{colour % COLOURS}"))
        area = element("rect", x=start, y=frame.y1, width=max(end - start, 0.1), height=frame.y0 - frame.y1)
        guide = segment(frame.x(x), frame.y1, frame.x(x), frame.y0, "guide")
        yield element("g", element("title", "\n".join(texts)), area, guide, *dots, class_="answer")


def _value_text(line: Series, index: int) -> str:
    text = f"{line.ys[index]:.3g}"
    return f"{text} ({line.lows[index]:.3g} to {line.highs[index]:.3g})" if line.lows else text


def _downsample(series: Series, factor: float) -> Series:
    """Convert a series to display units, with at most MAX_POINTS points or buckets of equal size."""
    ys, lows, highs = ([factor * value for value in values] for values in (series.ys, series.lows, series.highs))
    size = math.ceil(len(ys) / MAX_POINTS)
    if size <= 1:
        return Series(series.label, series.xs, ys, lows, highs)
    points: list[tuple[float, float, float, float]] = []
    for start in range(0, len(ys), size):
        chunk = range(start, min(start + size, len(ys)))
        finite = [i for i in chunk if drawable(ys[i])]
        mean = sum(ys[i] for i in finite) / len(finite) if finite else math.nan
        low = min(((lows or ys)[i] for i in finite), default=math.nan)
        points.append((series.xs[chunk[len(chunk) // 2]], mean, low, max(((highs or ys)[i] for i in finite), default=math.nan)))
    return Series(series.label, *map(list, zip(*points, strict=True)))


def points_per_mark(curve: Curve) -> int:
    """Points per drawn mark of the longest line; 1 without downsampling."""
    return max((math.ceil(len(series.xs) / MAX_POINTS) for series in curve.series), default=1) or 1


def factor_of(unit: str) -> float:
    return 100.0 if unit == "%" else 1.0


def _reach(value: Interval | float) -> tuple[float, ...]:
    return (value.mean, value.low, value.high) if isinstance(value, Interval) else (value,)


def drawable(*numbers: float) -> bool:
    """True for finite numbers of moderate size, so that a diverged run has a page, too."""
    return all(abs(number) < 1e30 for number in numbers)


def widen_range(low: float, high: float, by: float) -> tuple[float, float]:
    """Add a fraction `by` of a range's length at both ends; an empty range gets some length."""
    margin = (high - low) * by
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        margin = max(abs(low), abs(high)) * 0.1 or 0.5
    return low - margin, high + margin


def limit_range(low: float, high: float, curve: Curve, values: Sequence[float]) -> tuple[float, float]:
    """Cut a range to `curve.bounds`, or to 0 to 100 % for shares; values beyond stay visible."""
    shares = (0.0, 1.0) if curve.unit == "%" and all(-1e-9 <= value <= 100 + 1e-9 for value in values) else None
    bounds = curve.bounds or shares
    if bounds is None:
        return low, high
    bottom, top = (bound * factor_of(curve.unit) for bound in bounds)
    return max(low, min([bottom, *values])), min(high, max([top, *values]))


def segment(x1: float, y1: float, x2: float, y2: float, class_: str, title: str = "") -> Markup:
    """A straight line, with a text on hover."""
    return element("line", *([element("title", title)] if title else []), x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def element(name: str, *content: str, **attributes: object) -> Markup:
    """An element with escaped content and attributes, except for Markup.

    Underscores in attributes are hyphens (aria_label), and a final one is dropped (class_).
    """
    attribute_text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.1f}" if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
    )
    inside = "".join(map(escape, content))
    return Markup(f"<{name}{attribute_text}>{inside}</{name}>" if inside else f"<{name}{attribute_text}/>")
