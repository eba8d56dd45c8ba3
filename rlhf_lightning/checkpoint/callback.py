"""Lightning callback that saves and restores checkpoints, with random states and counters.

Disk errors are raised on all ranks.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpointCallback

from rlhf_lightning.checkpoint.graceful_stop import StopSignal, exit_code
from rlhf_lightning.checkpoint.manifest import Checkpoint
from rlhf_lightning.checkpoint.store import CheckpointStore
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.training.distributed import all_gather
from rlhf_lightning.training.ending import FINISHED, Ending, end_of, planned_steps
from rlhf_lightning.training.nonfinite import NonFiniteGuard


def random_state() -> dict[str, Any]:
    """The states of the generators of Python, NumPy and torch, and of this process's GPU if it has one."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, cached = legacy
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore a `random_state`, so that all generators continue from it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes straight into the target file.

    Lightning's own goes through a copy in memory and a file in TMPDIR, which may be small, on another disk, and left behind by a kill.

    Attributes:
        failure: why the last file couldn't be written. Raised in `save_checkpoint` it would leave the other ranks waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file; an error of the disk goes to `failure`."""
        self.failure = None
        try:
            with open(path, "wb") as file:
                torch.save(checkpoint, file)
        except OSError as cause:
            self.failure = cause
        except RuntimeError as cause:
            # torch raises this after a short write; the error of the write itself is its context or lost.
            context = cause.__context__
            if not isinstance(context, OSError) and "PytorchStreamWriter" not in str(cause):
                raise
            self.failure = context if isinstance(context, OSError) else OSError(f"the file could only be written in part: {cause}")


FILE = "trainer.ckpt"
KEY = "rlhf_lightning"
"""Key of this project's part of Lightning's checkpoint."""
COUNTERS = ("history",)
"""Attributes of a module outside its state_dict; a module with others lists all of them in its `counters`."""


# Lightning runs callbacks of this base class after all others.
class CheckpointCallback(LightningCheckpointCallback):
    """Saves the trainer's complete checkpoint every `every` steps, at the end and at a signal.

    A step is a batch over all epochs (of PPO: an update). The checkpoint is saved at the end of a step, after the optimizer and its
    schedule; at the last batch of an epoch, at the end of the epoch. At a signal the step is finished, all processes save and stop at the
    same one. The checkpoint has the random states of every process.

    Args:
        resumed: the checkpoint that this training resumes from.

    Attributes:
        ending: of this training, or of the finished one that is resumed; None before its end.
    """

    def __init__(self, store: CheckpointStore, every: int, resumed: Checkpoint | None) -> None:
        self.store, self.every, self.resumed = store, every, resumed
        self.stop = StopSignal()
        self.io = DirectCheckpointIO()
        self.ending: Ending | None = None
        self._random: dict[str, Any] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = self.io  # sharding strategies write by themselves and ignore it
        self._check_processes(trainer)

    def _check_processes(self, trainer: L.Trainer) -> None:
        """Reject another number of processes than before, and processes that read different checkpoints."""
        orders = all_gather(None if self.resumed is None else self.resumed.order, trainer.world_size)
        if len(set(orders)) > 1:
            raise UserError(f"{self.store.folder}: the processes see different newest checkpoints ({orders}): the folder must be shared")
        before = trainer.world_size if self.resumed is None else self.resumed.metadata["processes"]
        if before != trainer.world_size:
            raise ConfigError(
                f"{self.store.folder}: the checkpoint is of {before} processes, each with its own random states, and there are "
                f"{trainer.world_size}: resume with as many (trainer.devices, trainer.num_nodes)"
            )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        counters = {name: getattr(pl_module, name) for name in getattr(pl_module, "counters", COUNTERS) if hasattr(pl_module, name)}
        checkpoint[KEY] = {"random": all_gather(random_state(), trainer.world_size), "counters": counters}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint[KEY]
        self._random = state["random"][trainer.global_rank]
        for name, value in state["counters"].items():
            setattr(pl_module, name, value)
        if self.resumed is not None and self.resumed.metadata["over"]:
            trainer.should_stop = True
            self.ending = Ending(
                **{"reason": FINISHED, "steps": self.resumed.step, "planned": self.resumed.step, **self.resumed.metadata.get("ending", {})}
            )
        # Curves start anew, and rows logged after the checkpoint will be logged again.
        for logger in trainer.loggers:
            for step, metrics in enumerate(state["counters"].get("history", []), start=1):
                logger.log_metrics(metrics, step=step)
            logger.save()

    def restore_random(self) -> None:
        """Restore the random states of the checkpoint, once."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now, before = trainer.num_training_batches, None if self.resumed is None else self.resumed.metadata["batches"]
        if before not in (None, now):
            raise ConfigError(
                f"{self.store.folder}: the checkpoint has epochs of {before} batches, and now they have {now}: the data or the batch size "
                "has changed"
            )
        self.stop.listen(trainer)
        self.restore_random()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trainer.should_stop:
            return  # the epoch ends after this batch, and the loop's counters are complete only then
        self._end_step(trainer, over=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        progress: Any = trainer.fit_loop.epoch_progress
        epochs, max_epochs = progress.current.processed, trainer.max_epochs
        self._end_step(trainer, over=trainer.should_stop or (max_epochs is not None and 0 <= max_epochs <= epochs))

    def _end_step(self, trainer: L.Trainer, over: bool) -> None:
        number = self.stop.of_all_ranks(trainer)
        step = trainer.fit_loop.total_batch_idx + 1
        if over:
            self.ending = end_of(trainer, step)
        if number or over or step % self.every == 0:
            self.save(trainer, step, over)
        if number:
            steps = f"step {step} of {planned_steps(trainer)}"
            self.store.log(f"stopped by {signal.Signals(number).name} after {steps}; its checkpoint is in {self.store.folder}")
            self.stop.requeue(number, trainer)
            raise SystemExit(exit_code(number, trainer))

    def save(self, trainer: L.Trainer, step: int, over: bool) -> None:
        """Save a checkpoint now. Collective: call it on every rank.

        Raises:
            UserError: on all ranks, where it can't be written or has weights that aren't finite.
        """
        if isinstance(trainer.lightning_module, NonFiniteGuard):
            trainer.lightning_module.check_weights()
        metadata: dict[str, Any] = {"over": over, "processes": trainer.world_size, "batches": int(trainer.num_training_batches)}
        if over and self.ending is not None:
            metadata["ending"] = self.ending.fields()
        _on_rank_zero(trainer, lambda: self.store.begin(step))
        trainer.save_checkpoint(self.store.staging_folder(step) / FILE, weights_only=False)
        _on_rank_zero(trainer, lambda: self._commit(step, metadata))

    def _commit(self, step: int, metadata: dict[str, Any]) -> None:
        if self.io.failure is not None:
            raise self.store.save_error(step, self.io.failure) from self.io.failure
        self.store.commit(step, metadata)


def _on_rank_zero(trainer: L.Trainer, action: Callable[[], Any]) -> None:
    """Act on rank 0 while the others wait; its UserError is raised on all ranks."""
    error: UserError | None = None
    if trainer.is_global_zero:
        try:
            action()
        except UserError as cause:
            error = cause
    message = trainer.strategy.broadcast("" if error is None else str(error))
    if error is not None:
        raise error
    if message:
        raise UserError(message)
