"""CSV files with atomic appends: a full disk leaves no partial rows."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from rlhf_lightning.config.atomic_write import temporary_sibling
from rlhf_lightning.config.display import csv_cell

MERGED = ("perf/", "evaluation/")
"""Beginnings of metrics that belong to the row of their step."""


class AtomicCSVWriter(ExperimentWriter):
    """Lightning's CSV writer with atomic appends: rows that failed are written again later.

    Own code rather than Lightning's, which leaves torn rows and loses the earlier ones when a new column rewrites the file.
    """

    def log_metrics(self, metrics_dict: Any, step: int | None = None) -> None:
        """Add a row; speeds and evaluations are merged into an unwritten row of their step."""
        super().log_metrics(metrics_dict, step)
        if len(self.metrics) > 1 and all(name.startswith(MERGED) for name in metrics_dict) and self.metrics[-2]["step"] == step:
            speeds = self.metrics.pop()
            self.metrics[-1] |= speeds

    def save(self) -> None:
        """Append the new rows, all or none. Raises OSError."""
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        names = sorted({*self.metrics_keys, *(name for row in self.metrics for name in row)})
        first = self.metrics[0]
        is_merged = all(name == "step" or name.startswith("evaluation/") for name in first)
        if path.is_file() and names == self.metrics_keys and not is_merged:
            length = path.stat().st_size
            try:
                with path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, names).writerows(self.metrics)
            except OSError:
                os.truncate(path, length)
                raise
        else:
            rows: list[Any] = []
            pending = self.metrics
            if path.is_file():
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
            if is_merged and rows and rows[-1]["step"] == str(first["step"]):
                rows[-1] |= first
                pending = self.metrics[1:]
            write_rows(path, names, [*rows, *pending])
        self.metrics_keys, self.metrics = names, []


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically, without formulas for spreadsheets (`csv_cell`)."""
    temporary = temporary_sibling(path)
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append_samples(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows of one step and one origin of prompts, in place of those of a stopped attempt."""
    earlier: list[Mapping[str, Any]] = []
    step, origin = rows[0]["step"], rows[0]["prompts"]
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            earlier = [
                row for row in csv.DictReader(file) if int(row["step"]) < step or (int(row["step"]) == step and row["prompts"] != origin)
            ]
    write_rows(path, list(dict.fromkeys(name for row in (*earlier, *rows) for name in row)), [*earlier, *rows])
