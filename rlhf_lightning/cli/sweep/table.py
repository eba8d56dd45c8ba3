"""The results of a sweep: one table of all jobs on the terminal, as CSV and as a page."""

from __future__ import annotations

import csv
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from rlhf_lightning.cli.sweep.jobs import SEED, Job, SameSettings, by_settings, read_jobs, varied_settings
from rlhf_lightning.config.display import csv_cell, literal, message, visible
from rlhf_lightning.config.overrides import quote_value
from rlhf_lightning.runtime.output_folder import real_folder

FAILED = "failed"
CSV_FILE, PAGE_FILE = "sweep.csv", "sweep.html"


class SweepTable(Callback):
    """Reports a sweep's results when it ends, from its folder: jobs may run in other processes.

    Attributes:
        failed: jobs of the last sweep without a result.
        folder: of the sweep under way; None after its end.
    """

    failed: ClassVar[int] = 0
    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SweepTable.folder = real_folder(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        SweepTable.folder = None
        SweepTable.failed = report_sweep(real_folder(config.hydra.sweep.dir), Console())

    @classmethod
    @contextmanager
    def summary(cls) -> Iterator[None]:
        """Exit with 1 after a sweep with failed jobs; report an interrupted one, and how to resume it."""
        cls.failed = 0
        try:
            yield
        except BaseException:
            folder, cls.folder = cls.folder, None
            if folder is not None and folder.is_dir() and read_jobs(folder):
                report_sweep(folder, Console())
                typed = shlex.quote(f"hydra.sweep.dir={quote_value(str(folder))}")
                print(visible(f"the sweep has ended early; to resume it: the same command with {typed}"), file=sys.stderr)
            raise
        if cls.failed:
            sys.exit(1)


def report_sweep(folder: Path, console: Console) -> int:
    """Print a sweep's table, and write sweep.csv and sweep.html. Returns the number of failed jobs."""
    jobs = read_jobs(folder)
    if not jobs:
        return 0
    from rlhf_lightning.cli.sweep.page import write_sweep_page

    failed = [job for job in jobs if job.objective is None]
    write_csv(jobs, folder / CSV_FILE)
    write_sweep_page(jobs, folder / PAGE_FILE)
    table = terminal_table(jobs, console)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = max(console.width, Measurement.get(console, console.options.update(max_width=10_000), table).maximum)
    console.print(table)
    for job in failed:
        console.print(literal(message(f"job {job.name} failed: {job.error}"), console), soft_wrap=True)
    for file in (CSV_FILE, PAGE_FILE):
        console.print(literal(str(folder / file), console), soft_wrap=True)
    return len(failed)


def write_csv(jobs: Sequence[Job], file: Path) -> None:
    """A row for each job: its number, settings, objective, metrics, seconds, and why it failed."""
    rows = [_row(job) for job in jobs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, restval="")
        writer.writerow({name: csv_cell(name) for name in columns})
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)


def _row(job: Job) -> dict[str, Any]:
    start = {"job": job.name, **job.settings}
    if job.objective is None:
        return start | {"objective": FAILED, "error": job.error}
    return start | {"objective": job.objective, **job.metrics, "seconds": job.seconds}


def terminal_table(jobs: Sequence[Job], console: Console | None = None) -> Table:
    """A line for each job, or for each combination of settings if seeds were swept."""
    console = console or Console()
    failed = sum(job.objective is None for job in jobs)
    title = f"{len(jobs)} jobs, {failed} failed" if failed else f"{len(jobs)} jobs"
    names = varied_settings(jobs)
    groups = by_settings(jobs)
    if SEED not in names or len(groups) == len(jobs):
        return _table(console, title, [{"job": job.name, **_values_of(job.settings, names)} | _metrics(job) for job in jobs])
    names.remove(SEED)
    return _table(console, f"{title}; means over seeds", [_group_row(group, names) for group in groups])


def _group_row(group: SameSettings, names: Sequence[str]) -> dict[str, Any]:
    mean = group.objective
    objective = {"objective": FAILED} if mean is None else {"objective": mean.mean, "95 % interval": interval_text(mean.low, mean.high)}
    seeds = f"{len(group.finished_jobs)} of {len(group.jobs)}" if len(group.finished_jobs) < len(group.jobs) else str(len(group.jobs))
    return {**_values_of(group.settings, names), "seeds": seeds} | objective | _short(group.metrics)


def _metrics(job: Job) -> dict[str, Any]:
    return {"objective": FAILED} if job.objective is None else {"objective": job.objective, **_short(job.metrics), "seconds": job.seconds}


def _short(metrics: Any) -> dict[str, Any]:
    """The metrics for the terminal; the file has all of them."""
    return {name: value for name, value in metrics.items() if "/" not in name}


def _values_of(settings: Any, names: Sequence[str]) -> dict[str, str]:
    return {name: settings.get(name, "") for name in names}


def interval_text(low: float, high: float) -> str:
    """[0.51, 0.64]; empty for a single seed."""
    return f"[{low:.4g}, {high:.4g}]" if math.isfinite(low) and math.isfinite(high) else ""


def _table(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title)
    for name in names:
        table.add_column(literal(name, console), overflow="fold")
    for row in rows:
        table.add_row(*(literal(f"{cell:.4g}" if isinstance(cell := row.get(name, ""), float) else str(cell), console) for name in names))
    return table
