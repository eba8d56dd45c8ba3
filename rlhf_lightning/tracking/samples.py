"""Tables of responses during a training: on the terminal, and in its loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import lightning as L
from rich import box
from rich.console import Console
from rich.table import Table

from rlhf_lightning.config.display import literal, markdown
from rlhf_lightning.report.report import Sample

SHOWN = 3
"""Rows on the terminal."""
WIDTH = 90
"""Characters of a text on the terminal."""
Rows = Sequence[Mapping[str, Any]]


def sample_rows(step: int, origin: str, measured: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Rows of step, origin, prompt, response and values of some responses, at regular intervals.

    Args:
        origin: of the prompts: "training" or "held-out".
        measured: lists `prompts`, `responses` and, by metric, `values`.
    """
    prompts, responses, values = (measured.get(name) or {} for name in ("prompts", "responses", "values"))
    stride = max(1, len(prompts) // count)
    return [
        {
            "step": step,
            "prompts": origin,
            "prompt": prompts[i],
            "response": responses[i],
            **{name: column[i] for name, column in values.items()},
        }
        for i in range(0, len(prompts), stride)[:count]
    ]


def show_samples(rows: Rows, loggers: Sequence[Any], console: Console) -> None:
    """Print the first rows and hand all of them to the loggers that take samples; nothing without rows."""
    if not rows:
        return
    title = f"step {rows[0]['step']}, {rows[0]['prompts']} prompts"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    names = [name for name in rows[0] if name not in ("step", "prompts")]
    for name in names:
        table.add_column(name, overflow="fold", header_style="dim")
    for row in rows[:SHOWN]:
        table.add_row(*(literal(_short(row[name]), console) for name in names))
    console.print(table)
    for logger in loggers:
        if hasattr(logger, "log_samples"):
            logger.log_samples(rows)


def table_of(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One row per sample, without columns that are empty in all of them."""
    rows = [asdict(sample) for sample in samples]
    columns = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in columns} for row in rows]


def markdown_table(rows: Rows) -> str:
    """A table in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    """A value inside a Markdown table."""
    if isinstance(value, str):
        return "<br>".join(map(markdown, value.splitlines()))
    return "" if value is None else str(value)


def _short(value: Any) -> str:
    if not isinstance(value, str):
        return f"{value:.4g}"
    text = " ".join(value.split())
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}..."


class Completions(L.Callback):
    """Shows responses of PPO's updates, which its module has as `completions`, without drawing others.

    Args:
        every: updates from one table to the next.
        count: of rows.
    """

    def __init__(self, every: int, count: int, console: Console) -> None:
        self.every, self.count, self.console = every, count, console

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.fit_loop.total_batch_idx + 1
        completions: Any = getattr(pl_module, "completions", {})
        if step % self.every == 0 and trainer.is_global_zero:
            show_samples(sample_rows(step, "training", completions, self.count), trainer.loggers, self.console)
