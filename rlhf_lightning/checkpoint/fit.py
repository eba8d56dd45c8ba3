"""`Trainer.fit` from the newest checkpoint, with checkpoints on the way."""

from __future__ import annotations

import faulthandler
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import lightning as L

from rlhf_lightning.checkpoint.callback import FILE, CheckpointCallback
from rlhf_lightning.checkpoint.graceful_stop import end_children
from rlhf_lightning.checkpoint.lock import lock_folder
from rlhf_lightning.checkpoint.manifest import Checkpoint
from rlhf_lightning.checkpoint.signals import raise_pending
from rlhf_lightning.checkpoint.store import CheckpointStore
from rlhf_lightning.training.ending import Ending, end_of

MISLEADING_WARNINGS = (
    "You're resuming from a checkpoint that ended before the epoch ended",
    "Experiment logs directory .* exists and is not empty",
)
"""Starts of Lightning's warnings at a resume: ShardedData continues at the right batch, and curves are logged again."""


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule,
    *,
    folder: Path,
    every: int = 20,
    keep: int = 2,
    log: Callable[[str], None] = lambda text: None,
) -> Ending:
    """Train to the end, or to an early one; returns which.

    The result is bitwise that of an uninterrupted training on a machine that computes alike: weights, optimizer, schedule, random states
    of every process, `history`.

    Args:
        data: a datamodule.ShardedData, which can start within an epoch.
        folder: for the checkpoints of this training alone; no other process may train there meanwhile.
        every: steps between checkpoints.
        keep: number of complete checkpoints to keep.

    Raises:
        ConfigError: the folder is in use or can't be written; the checkpoint is of another number of processes or batches.
        DataError: there are checkpoints, and none is complete.
        UserError: a checkpoint couldn't be written.
        SystemExit: stopped by a signal, after the checkpoint of the last step.
    """
    is_rank_zero = trainer.is_global_zero
    store = CheckpointStore(folder, keep, log if is_rank_zero else lambda text: None)
    with lock_folder(store.folder) if is_rank_zero else nullcontext():
        if is_rank_zero:
            store.prepare()
        # Find the checkpoint to resume from.
        newest = store.newest()
        callback = CheckpointCallback(store, every, newest)
        trainer.callbacks.append(callback)  # type: ignore[attr-defined]
        over = newest is not None and bool(newest.metadata["over"])
        if newest is not None:
            _announce_resume(store, newest, over)
        # Train, and end the processes of this training at a signal.
        try:
            trainer.fit(module, data, ckpt_path=None if newest is None else newest.folder / FILE, weights_only=True)
        except SystemExit:
            end_children(trainer, at_once=not callback.stop.number)  # between steps the other ranks weren't notified
            raise
        callback.restore_random()
        if callback.stop.number:
            raise_pending(callback.stop.number)  # it came after the last step
    return callback.ending or end_of(trainer, trainer.fit_loop.total_batch_idx + 1)  # without a step: the time was over


def _announce_resume(store: CheckpointStore, newest: Checkpoint, over: bool) -> None:
    """Log the checkpoint, and silence Lightning's misleading warnings."""
    progress = "this training is already complete, no step is left" if over else f"continuing after step {newest.step}"
    store.log(f"{newest.folder}: {progress}")
    for message in MISLEADING_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


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
