"""The report in the terminal: reproducible tables first, then seconds and the page's path."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from rlhf_lightning.config.display import literal
from rlhf_lightning.report import formatting
from rlhf_lightning.report.report import Metric, Report, Value

WIDTH = 100
"""Columns if the output is no terminal."""


def print_report(report: Report, page: Path | None = None, console: Console | None = None) -> None:
    """Print metrics, tables, target and notes, then the seconds by stage and the page's path.

    Equal results print equal bytes up to the seconds. The default console is standard output, as plain text of WIDTH columns if it
    is no terminal.
    """
    console = console or Console()
    if console.is_terminal:
        _print(report, page, console)
        return
    before, console.width = console.width, WIDTH
    try:
        _print(report, page, console)
    finally:
        console.width = before


def _print(report: Report, page: Path | None, console: Console) -> None:
    if report.metrics:
        console.print(_metrics(report, console))
    for table in report.tables:
        if table.in_terminal and table.rows:
            rows = [[formatting.cell(value, table.digits) for value in row] for row in table.rows]
            console.print(_table(console, table.title, table.heads, rows, table.note))
    target = [f"{'Target met' if report.target.met else 'Target not met'}: {report.target.text}"] if report.target else []
    for line in [*target, *(f"Note: {note}" for note in report.notes)]:
        console.print(literal(line, console))
    if report.seconds:
        console.print(_seconds(report, console))
    if page is not None:
        # No line break within the path, so that it can be clicked or copied.
        console.print(literal(f"Report: {page}", console), soft_wrap=True)


def _metrics(report: Report, console: Console) -> Table:
    compares = any(metric.before is not None or metric.difference is not None for metric in report.metrics)
    rows = []
    for metric in report.metrics:
        value, n = _value(metric, metric.after), formatting.items(metric)
        rows.append([_label(metric), *([_value(metric, metric.before), value, _change(metric)] if compares else [value]), n])
    level = formatting.level(report)
    caption = f"[low, high]: {level} interval over n items" if level else ""
    return _table(console, report.title, ["", *(["before", "after", "change"] if compares else ["value"]), "n"], rows, caption)


def _seconds(report: Report, console: Console) -> Table:
    total = sum(time.seconds for time in report.seconds)
    rows = [[time.stage, f"{time.seconds:,.1f}"] for time in report.seconds]
    return _table(console, "", ["", "seconds"], [*rows, ["all", f"{total:,.1f}"]], "")


def _table(console: Console, title: str, heads: list[str], rows: list[list[str]], caption: str) -> Table:
    table = Table(
        title=literal(title, console) if title else None,
        caption=literal(caption, console) if caption else None,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title_justify="left",
        caption_justify="left",
        title_style="bold",
    )
    for index, head in enumerate(heads):
        # Only in a narrow terminal may numbers wrap.
        no_wrap = index > 0 and console.width >= WIDTH
        table.add_column(literal(head, console), justify="right" if index else "left", overflow="fold", no_wrap=no_wrap, header_style="dim")
    for row in rows:
        table.add_row(*(literal(cell, console) for cell in row))
    return table


def _label(metric: Metric) -> str:
    return formatting.row_label(metric) + (f", ceiling {formatting.number(metric, metric.ceiling)}" if metric.ceiling is not None else "")


def _value(metric: Metric, value: Value | None) -> str:
    return _with_bounds(formatting.number(metric, value), formatting.bounds(metric, value))


def _change(metric: Metric) -> str:
    return _with_bounds(formatting.change(metric), formatting.bounds(metric, metric.change))


def _with_bounds(text: str, bounds: str) -> str:
    return f"{text} [{bounds}]" if bounds else text
