"""Train as `Trainer.fit` does, from the newest checkpoint where there is one, and keep checkpoints on the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import lightning as L

from rlhf_lightning.checkpoint.callback import FILE, CheckpointCallback
from rlhf_lightning.checkpoint.graceful_stop import end_children
from rlhf_lightning.checkpoint.lock import lock_folder
from rlhf_lightning.checkpoint.signals import raise_pending
from rlhf_lightning.checkpoint.store import CheckpointStore

UNTRUE = ("You're resuming from a checkpoint that ended before the epoch ended", "Experiment logs directory .* exists and is not empty")
"""Beginnings of Lightning's warnings at a resume: ShardedData goes on at the right batch, and curves are logged again."""


def fit(
    trainer: L.Trainer,
    module: L.LightningModule,
    data: L.LightningDataModule,
    *,
    folder: Path,
    every: int = 20,
    keep: int = 2,
    log: Callable[[str], None] = lambda text: None,
) -> bool:
    """Train to the end; returns whether the training had already been over, and nothing was left to do.

    What it leaves is bitwise what an uninterrupted training leaves, where the machine computes alike: weights, optimiser, schedule, random
    states of every process, `history`.

    Args:
        data: a datamodule.ShardedData, which begins an epoch in its middle.
        folder: of this training's checkpoints alone; no other process may train there meanwhile.
        every: steps from one checkpoint to the next.
        keep: whole checkpoints that stay.

    Raises:
        ConfigError: the folder is in use or can't be written; the checkpoint is of another number of processes or batches.
        DataError: there are checkpoints, and none is whole.
        UserError: a checkpoint couldn't be written.
        SystemExit: a signal asked to stop; the checkpoint of the last step stands.
    """
    first = trainer.is_global_zero
    store = CheckpointStore(folder, keep, log if first else lambda text: None)
    with lock_folder(store.folder) if first else nullcontext():
        if first:
            store.prepare()
        newest = store.newest()
        keeping = CheckpointCallback(store, every, newest)
        trainer.callbacks.append(keeping)  # type: ignore[attr-defined]
        over = newest is not None and bool(newest.about["over"])
        if newest is not None:
            left = "this training is already complete, no step is left" if over else f"going on after step {newest.step}"
            store.log(f"{newest.folder}: {left}")
            for untrue in UNTRUE:
                warnings.filterwarnings("ignore", message=untrue)
        try:
            trainer.fit(module, data, ckpt_path=None if newest is None else newest.folder / FILE, weights_only=True)
        except SystemExit:
            end_children(trainer, at_once=not keeping.stop.number)  # at another moment than a step's end nobody has told the others
            raise
        keeping.restore_random()
        if keeping.stop.number:
            raise_pending(keeping.stop.number)  # it came after the last step
    return over
