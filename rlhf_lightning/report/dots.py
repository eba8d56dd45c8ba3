"""A plot of named rows with a dot for each value, such as the reliability of each annotator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from markupsafe import Markup

from rlhf_lightning.report.plots import (
    COLOURS,
    describe,
    drawable,
    element,
    factor_of,
    limit_range,
    segment,
    tick_labels,
    ticks,
    widen_range,
)
from rlhf_lightning.report.report import Curve

WIDTH, ROW, TOP, BOTTOM, NAMES = 440.0, 22.0, 14.0, 46.0, 150.0
MAX_ROWS = 40
MAX_LETTERS = 15


def dot_chart(curve: Curve) -> Markup:
    """Draw the curve's values on rows called by its `names`; an x is the number of a row, from 1."""
    factor, rows = factor_of(curve.unit), curve.names[:MAX_ROWS]
    height = TOP + ROW * len(rows) + BOTTOM
    ys = [y * factor for series in curve.series for x, y in zip(series.xs, series.ys, strict=True) if x <= len(rows) and drawable(y)]
    ys += [level.at * factor for level in curve.levels if drawable(level.at)]
    low, high = limit_range(*widen_range(min(ys, default=0.0), max(ys, default=1.0), 0.08), curve, ys)

    def column(value: float) -> float:
        return NAMES + 10 + (value - low) / (high - low) * (WIDTH - NAMES - 36)

    base = height - BOTTOM + 4
    parts = [*_names(rows), *_axis(curve, low, high, base, column)]
    for index, series in enumerate(curve.series):
        for x, y in zip(series.xs, series.ys, strict=True):
            if x <= len(rows) and drawable(y):
                title = f"{curve.names[int(x) - 1]}: {series.label} {y * factor:.3g}{f' {curve.unit}' if curve.unit else ''}"
                mark = element("circle", cx=column(y * factor), cy=_row(int(x)), r=4.5, class_=f"dot c{index % COLOURS}")
                parts.append(element("g", element("title", title), mark))
    return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=describe(curve), class_="plot")


def _row(number: int) -> float:
    return TOP + ROW * (number - 0.5)


def _names(rows: Iterable[str]) -> Iterable[Markup]:
    for number, name in enumerate(rows, start=1):
        label = name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"
        yield element("text", element("title", name), label, x=NAMES, y=_row(number) + 4, class_="end")
        yield segment(NAMES + 10, _row(number), WIDTH - 26, _row(number), "grid")


def _axis(curve: Curve, low: float, high: float, base: float, column: Callable[[float], float]) -> Iterable[Markup]:
    values = ticks(low, high, 5)
    yield segment(column(low), base, column(high), base, "axis")
    for value, label in zip(values, tick_labels(values), strict=True):
        yield segment(column(value), base, column(value), base + 4, "axis")
        yield element("text", label, x=column(value), y=base + 17, class_="middle")
    for level in curve.levels:
        if drawable(level.at):
            x = column(level.at * factor_of(curve.unit))
            yield segment(x, TOP - 6, x, base, "level", title=level.label)
    yield element("text", curve.unit or curve.x_label, x=(column(low) + column(high)) / 2, y=base + 36, class_="middle name")
