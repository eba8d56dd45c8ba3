"""Ends a training that stalls, so that no machine waits for a scorer or disk that never answers."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from typing import IO, Any

import lightning as L

MINUTE = 60.0


class Watchdog(L.Callback):
    """Dumps the stacks of all threads and exits with code 1 after too long without a finished batch.

    The timer is a C thread (faulthandler), which runs while the interpreter waits for a call that never returns. Each process has its own.
    Nothing is saved at that moment: `resume=RUN` continues from the last checkpoint.

    Args:
        file: for the stacks; removed when the training ends otherwise.
        minutes: from one batch, of training or validation, to the next.
    """

    def __init__(self, file: Path, minutes: float) -> None:
        self.file, self.minutes = file, minutes
        self._open: IO[str] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            while self.file.exists():  # of an earlier process
                self.file = self.file.with_name(f"{self.file.stem}_again{self.file.suffix}")
            self._open = self.file.open("x")
        except OSError:
            return  # a folder that can't be written is rejected or reported by its other users
        self._restart_timer()

    def _restart_timer(self, *_: Any) -> None:
        if self._open is not None:
            faulthandler.dump_traceback_later(self.minutes * MINUTE, exit=True, file=self._open)

    def on_train_batch_end(self, *_: Any) -> None:
        self._restart_timer()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._restart_timer()

    def on_validation_end(self, *_: Any) -> None:
        self._restart_timer()

    def on_train_epoch_end(self, *_: Any) -> None:
        self._restart_timer()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._cancel_timer()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._open is not None:
            faulthandler.cancel_dump_traceback_later()
            self._open.close()
            self._open = None
            self.file.unlink(missing_ok=True)
