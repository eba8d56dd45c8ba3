"""Formatting of numbers, intervals and durations on the page and in the terminal."""

from __future__ import annotations

import math

from rlhf_lightning.report.report import Metric, Report
from rlhf_lightning.statistics.intervals import Interval

NOTHING = "-"


def decimal(value: float, digits: int) -> str:
    """Format a number with `digits` decimals, without "-0.00"."""
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def number(metric: Metric, value: Interval | float | None) -> str:
    """Format a metric's value without its interval: 0.621, or 81.3 %."""
    if value is None:
        return NOTHING
    text = decimal(metric.factor * _mean(value), metric.decimals)
    return f"{text} %" if metric.unit == "%" and text[-1].isdigit() else text


def cell(value: str | float | None, digits: int) -> str:
    """Format a table's cell: texts unchanged, integers with separators, floats with `digits` decimals."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else decimal(value, digits)


def bounds(metric: Metric, value: Interval | float | None, between: str = ", ") -> str:
    """Format a value's interval: 0.590, 0.650; empty without one."""
    if not isinstance(value, Interval) or math.isnan(value.low) or math.isinf(value.low):
        return ""
    return between.join(decimal(metric.factor * bound, metric.decimals) for bound in (value.low, value.high))


def change(metric: Metric) -> str:
    """Format the change with its sign: +0.309, or +12.4 points for percentages."""
    difference = metric.difference
    if difference is None:
        return NOTHING
    text = decimal(metric.factor * _mean(difference), metric.decimals)
    sign = "+" if text[0].isdigit() and float(text) > 0 else ""
    return f"{sign}{text} points" if metric.unit == "%" and text[-1].isdigit() else f"{sign}{text}"


def row_label(metric: Metric) -> str:
    """The metric's label with its unit, as the head of a row."""
    return f"{metric.label} ({metric.unit})" if metric.unit not in ("", "%") else metric.label


def items(metric: Metric) -> str:
    """The number of items that the metric was measured on."""
    counts = [value.n for value in (metric.after, metric.before, metric.change) if isinstance(value, Interval)]
    return f"{counts[0]:,}" if counts else NOTHING


def level(report: Report) -> str:
    """The level of the report's intervals, as "95 %"; empty without intervals."""
    values = [value for metric in report.metrics for value in (metric.before, metric.after, metric.change)]
    values += [value for result in report.rounds for value in (result.utility, result.accuracy)]
    levels = [value.level for value in values if isinstance(value, Interval)]
    return f"{100 * levels[0]:g} %" if levels else ""


def duration(seconds: float) -> str:
    """Format seconds: 0.42 s, 12.3 s, 4 min 12 s, 1 h 03 min."""
    if not math.isfinite(seconds):
        return "not finite"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _mean(value: Interval | float) -> float:
    return value.mean if isinstance(value, Interval) else value
