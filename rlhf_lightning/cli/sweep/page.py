"""A sweep as one HTML page: a plot and tables of objectives by settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.cli.sweep.jobs import SEED, Job, by_settings, varied_settings
from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.report.page import draw_chart, render_template
from rlhf_lightning.report.parallel import Axis, parallel_coordinates
from rlhf_lightning.report.report import Curve, Series, Table

Cells = list[str | float | None]
OBJECTIVE = "objective"


def write_sweep_page(jobs: Sequence[Job], file: Path) -> None:
    """Write the page atomically. Raises OSError where the folder can't be written."""
    write_atomic(file, sweep_page(jobs), private=True)


def sweep_page(jobs: Sequence[Job]) -> str:
    """The page's HTML: parallel coordinates, means over seeds, a table of jobs, the errors."""
    names = [name for name in varied_settings(jobs) if name != SEED]
    finished = [job for job in jobs if job.objective is not None]
    same = {name: value for name, value in jobs[0].settings.items() if name not in varied_settings(jobs)}
    return render_template(
        "sweep.html.j2",
        "sweep.css",
        title="Sweep",
        facts=[f"{len(jobs)} jobs", *([f"{len(jobs) - len(finished)} failed"] if len(finished) < len(jobs) else [])],
        drawing=plot(finished, names),
        by_lines=len(names) > 1,
        tables=[settings_table(jobs, names), jobs_table(jobs)],
        failed=[job for job in jobs if job.objective is None],
        same=[f"{name}={value}" for name, value in same.items()],
    )


def plot(jobs: Sequence[Job], names: Sequence[str]) -> str:
    """Draw jobs as lines over axes, or as dots where one setting varies; empty without jobs."""
    lines = [job for job in jobs if job.objective is not None and math.isfinite(job.objective)]
    if not lines or not names:
        return ""
    if len(names) == 1:
        return draw_chart(dots_by_value(lines, names[0])).drawing
    axes = [Axis(name, [job.settings.get(name, "") for job in lines]) for name in names]
    tooltips = [f"job {job.name}: {OBJECTIVE} {job.objective:.4g}\n{job.overrides}" for job in lines]
    return parallel_coordinates([*axes, Axis(OBJECTIVE, [f"{job.objective:.4g}" for job in lines])], tooltips)


def dots_by_value(jobs: Sequence[Job], name: str) -> Curve:
    """The objectives of the jobs on a row per value of the setting; numbers in their order."""
    values = list(dict.fromkeys(job.settings.get(name, "") for job in jobs))
    if Axis(name, values).numbers is not None:
        values.sort(key=float)
    rows = [float(values.index(job.settings.get(name, "")) + 1) for job in jobs]
    series = Series(OBJECTIVE, rows, [job.objective or 0.0 for job in jobs])
    return Curve(name, OBJECTIVE, "", [series], names=values)


def settings_table(jobs: Sequence[Job], names: Sequence[str]) -> Table:
    """A row for each choice of settings: the objective's mean over its seeds with the 95 % interval."""
    rows: list[Cells] = []
    for group in by_settings(jobs):
        mean = group.objective
        bounds = [None, None] if mean is None or not math.isfinite(mean.low) else [mean.low, mean.high]
        chosen: Cells = [group.settings.get(name, "") for name in names] if names else ["all"]
        rows.append(
            [*chosen, None if mean is None else mean.mean, *bounds, len(group.finished_jobs), len(group.jobs) - len(group.finished_jobs)]
        )
    heads = [*(names or ["settings"]), f"mean {OBJECTIVE}", "low", "high", "seeds", "failed"]
    note = "low, high: Student's 95 % interval of the mean over seeds; none from a single seed."
    return Table(title="Settings, jobs of different seeds together", heads=heads, rows=rows, digits=4, note=note)


def jobs_table(jobs: Sequence[Job]) -> Table:
    """A row for each job with every metric."""
    names, metrics = varied_settings(jobs), list(dict.fromkeys(name for job in jobs for name in job.metrics))
    rows: list[Cells] = [
        [
            job.name,
            *(job.settings.get(name, "") for name in names),
            job.objective,
            *(job.metrics.get(name) for name in metrics),
            job.seconds,
        ]
        for job in jobs
    ]
    return Table(title="Jobs", heads=["job", *names, OBJECTIVE, *metrics, "seconds"], rows=rows, digits=4)
