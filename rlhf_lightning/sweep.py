"""The end of a sweep: one table of what every job gave."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

ERROR_FILE = "error.txt"
"""Why a job of a sweep failed, in its folder."""
FAILED = "failed"


class SweepTable(Callback):
    """Prints the table of a multirun and writes it as sweep.csv into the sweep's folder. Jobs may have run in other processes.

    `failed` counts those of the last sweep without a result.
    """

    failed: ClassVar[int] = 0

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = [job_row(job) for job in sorted(folder.iterdir(), key=_job_number) if (job / ".hydra").is_dir()]
        if not rows:
            return
        failed = [row for row in rows if row["objective"] == FAILED]
        SweepTable.failed = len(failed)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with (folder / "sweep.csv").open("w", newline="") as handle:
            writer = csv.DictWriter(handle, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        shown = [name for name in columns if name != "error" and "/" not in name]  # the file has every figure, a terminal no room
        table = Table(*shown, title=f"{len(rows)} jobs, {len(failed)} failed" if failed else f"{len(rows)} jobs")
        for row in rows:
            table.add_row(*(_shown(row.get(name, "")) for name in shown))
        console = Console()
        console.print(table)
        for row in failed:
            console.print(f"job {row['job']} failed: {row['error']}", highlight=False, soft_wrap=True, markup=False)
        console.print(str(folder / "sweep.csv"), highlight=False, soft_wrap=True)


def job_row(job: Path) -> dict[str, Any]:
    """A job's overrides and results; a job without a result says so."""
    overrides: Any = OmegaConf.load(job / ".hydra" / "overrides.yaml")
    row: dict[str, Any] = {"job": job.name}
    for override in map(str, overrides):
        name, _, value = override.lstrip("+~").partition("=")
        row[name] = value
    result = job / "result.json"
    if not result.is_file():
        error = job / ERROR_FILE
        return row | {"objective": FAILED, "error": error.read_text() if error.is_file() else "no result was written"}
    content: dict[str, Any] = json.loads(result.read_text())
    figures: dict[str, Any] = {"objective": content["objective"], **content["figures"]}
    return row | figures | {"seconds": sum(content["seconds"].values())}


def _job_number(job: Path) -> tuple[int, str]:
    return (int(job.name), "") if job.name.isdigit() else (2**31, job.name)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
