"""Progress on the terminal: a bar with figures where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 5


class StageProgress(L.Callback):
    """Shows a stage's steps, the newest figures of the module's `history`, and the time left. Only the first process speaks."""

    def __init__(self, title: str, total: int, figures: Mapping[str, str], console: Console | None = None) -> None:
        self.title, self.total, self.figures = title, total, figures
        self.console = console or Console()
        self.done = 0
        columns = (
            TextColumn(f"{self.title:<14}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.quiet = not trainer.is_global_zero
        self.start = time.perf_counter()
        self.bar.disable = self.quiet or not self.console.is_terminal
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=self.total, figures="")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.done += 1
        shown = self._figures(getattr(pl_module, "history", []))
        self.bar.update(self.task, completed=self.done, figures=shown)
        due = self.done == self.total or self.done % max(1, self.total // LINES) == 0
        if due and not self.quiet and not self.console.is_terminal:
            seconds = time.perf_counter() - self.start
            self.console.print(f"{self.title:<14} {self.done}/{self.total}  {shown}  {seconds:.0f} s", highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()

    def _figures(self, history: Sequence[Mapping[str, float]]) -> str:
        last = history[-1] if history else {}
        return "  ".join(f"{label} {last[name]:.3g}" for name, label in self.figures.items() if name in last)
