"""A training that stands still is ended, so that no machine waits for a scorer or a disk that never answers."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from typing import IO, Any

import lightning as L

MINUTE = 60.0


class Watchdog(L.Callback):
    """Ends the process with code 1 where no batch has ended for so long, and leaves the Python stacks of all its threads in a file.

    The clock is a thread of C (faulthandler), which runs while the interpreter waits for a call that never returns. Each process has its
    own. Nothing is saved at that moment: the last checkpoint stands, and `resume=RUN` goes on from it.

    Args:
        file: what the stacks are written to; it is gone when the training ends otherwise.
        minutes: from one batch, of training or validation, to the next.
    """

    def __init__(self, file: Path, minutes: float) -> None:
        self.file, self.minutes = file, minutes
        self._open: IO[str] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            while self.file.exists():  # what an earlier process left
                self.file = self.file.with_name(f"{self.file.stem}_again{self.file.suffix}")
            self._open = self.file.open("x")
        except OSError:
            return  # a folder that can't be written is refused, or said, by who needs it
        self._wait()

    def _wait(self, *_: Any) -> None:
        """Begin to wait anew."""
        if self._open is not None:
            faulthandler.dump_traceback_later(self.minutes * MINUTE, exit=True, file=self._open)

    def on_train_batch_end(self, *_: Any) -> None:
        self._wait()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._wait()

    def on_train_epoch_end(self, *_: Any) -> None:
        self._wait()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._over()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._over()

    def _over(self) -> None:
        if self._open is not None:
            faulthandler.cancel_dump_traceback_later()
            self._open.close()
            self._open = None
            self.file.unlink(missing_ok=True)
