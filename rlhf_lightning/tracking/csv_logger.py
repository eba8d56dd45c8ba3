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


class AtomicCSVWriter(ExperimentWriter):
    """Lightning's CSV writer with atomic appends: rows that failed are written again later.

    Own code rather than Lightning's, which leaves torn rows and loses the earlier ones when a new column rewrites the file.
    """

    def log_metrics(self, metrics_dict: Any, step: int | None = None) -> None:
        """Add a row; speeds are merged into the row of their step, unless it has been written."""
        super().log_metrics(metrics_dict, step)
        if len(self.metrics) > 1 and all(name.startswith("perf/") for name in metrics_dict) and self.metrics[-2]["step"] == step:
            speeds = self.metrics.pop()
            self.metrics[-1] |= speeds

    def save(self) -> None:
        """Append the new rows, all or none. Raises OSError."""
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        names = sorted({*self.metrics_keys, *(name for row in self.metrics for name in row)})
        if path.is_file() and names == self.metrics_keys:
            length = path.stat().st_size
            try:
                with path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, names).writerows(self.metrics)
            except OSError:
                os.truncate(path, length)
                raise
        else:
            rows: list[Any] = []
            if path.is_file():
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
            write_rows(path, names, [*rows, *self.metrics])
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
