"""Checkpoints of a training: when they are taken, what is in them beside Lightning's own, and how it is put back."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint as LastOfCallbacks

from rlhf_lightning.checkpoint.checkpoint_io import DirectCheckpointIO
from rlhf_lightning.checkpoint.graceful_stop import StopSignal, exit_code
from rlhf_lightning.checkpoint.manifest import Checkpoint
from rlhf_lightning.checkpoint.rng_state import random_state, set_random_state
from rlhf_lightning.checkpoint.store import CheckpointStore
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.training.distributed import all_gather
from rlhf_lightning.training.nonfinite import NonFiniteGuard

FILE = "trainer.ckpt"
KEY = "rlhf_lightning"
"""Under which our part stands in Lightning's checkpoint."""
COUNTERS = ("history",)
"""Attributes of a module that its state_dict doesn't hold; one that has others names all of them in its `counters`."""


class CheckpointCallback(LastOfCallbacks):
    """Saves the trainer's whole checkpoint every so many steps, at the end and at a signal, with the random states of every process.

    It is taken where a step ends, after the optimiser and its schedule; at the last batch of an epoch, where the epoch ends. A step is a
    batch over all epochs (of PPO: an update). Under a signal the step is finished, all processes save and stop at the same one.

    Args:
        resumed: the checkpoint that this training goes on from.
    """

    def __init__(self, store: CheckpointStore, every: int, resumed: Checkpoint | None) -> None:
        self.store, self.every, self.resumed = store, every, resumed
        self.stop = StopSignal()
        self.io = DirectCheckpointIO()
        self._random: dict[str, Any] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = self.io  # strategies that shard write by themselves, and leave it alone
        self._check_processes(trainer)

    def _check_processes(self, trainer: L.Trainer) -> None:
        """Refuse another number of processes than before, and processes that found different checkpoints."""
        orders = all_gather(None if self.resumed is None else self.resumed.order, trainer.world_size)
        if len(set(orders)) > 1:
            raise UserError(f"{self.store.folder}: the processes see different newest checkpoints ({orders}): the folder must be shared")
        before = trainer.world_size if self.resumed is None else self.resumed.about["processes"]
        if before != trainer.world_size:
            raise ConfigError(
                f"{self.store.folder}: the checkpoint is of {before} processes, each with random states of its own, and there are "
                f"{trainer.world_size}: resume with as many (trainer.devices, trainer.num_nodes)"
            )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        counters = {name: getattr(pl_module, name) for name in _counters(pl_module)}
        checkpoint[KEY] = {"random": all_gather(random_state(), trainer.world_size), "counters": counters}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        ours = checkpoint[KEY]
        self._random = ours["random"][trainer.global_rank]
        for name, value in ours["counters"].items():
            setattr(pl_module, name, value)
        if self.resumed is not None and self.resumed.about["over"]:
            trainer.should_stop = True
        # Curves begin anew, and what was logged after the checkpoint will be logged again.
        for logger in trainer.loggers:
            for step, metrics in enumerate(ours["counters"].get("history", []), start=1):
                logger.log_metrics(metrics, step=step)
            logger.save()

    def restore_random(self) -> None:
        """Put back the random states of the checkpoint, once."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now, before = trainer.num_training_batches, None if self.resumed is None else self.resumed.about["batches"]
        if before not in (None, now):
            raise ConfigError(
                f"{self.store.folder}: the checkpoint has epochs of {before} batches, and now they have {now}: the data or the batch size "
                "is another one"
            )
        self.stop.listen(trainer)
        self.restore_random()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trainer.should_stop:
            return  # the epoch ends here, and the loop's counters are whole only then
        self._end_step(trainer, over=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        progress: Any = trainer.fit_loop.epoch_progress
        done, asked = progress.current.processed, trainer.max_epochs
        self._end_step(trainer, over=trainer.should_stop or (asked is not None and 0 <= asked <= done))

    def _end_step(self, trainer: L.Trainer, over: bool) -> None:
        number = self.stop.of_all(trainer)
        step = trainer.fit_loop.total_batch_idx + 1
        if number or over or step % self.every == 0:
            self.save(trainer, step, over)
        if number:
            self.store.log(f"stopped by {signal.Signals(number).name} after step {step}, whose checkpoint stands in {self.store.folder}")
            self.stop.requeue(number, trainer)
            raise SystemExit(exit_code(number, trainer))

    def save(self, trainer: L.Trainer, step: int, over: bool) -> None:
        """Take a checkpoint now; all processes together. Raises UserError on all of them where it can't be written, or isn't worth it:
        weights that aren't finite."""
        if isinstance(trainer.lightning_module, NonFiniteGuard):
            trainer.lightning_module.check_weights()
        about = {"over": over, "processes": trainer.world_size, "batches": int(trainer.num_training_batches)}
        _on_first(trainer, lambda: self.store.begin(step))
        trainer.save_checkpoint(self.store.beside(step) / FILE, weights_only=False)
        _on_first(trainer, lambda: self._commit(step, about))

    def _commit(self, step: int, about: dict[str, Any]) -> None:
        if self.io.failure is not None:
            raise self.store.refused(step, self.io.failure) from self.io.failure
        self.store.commit(step, about)


def _counters(module: L.LightningModule) -> tuple[str, ...]:
    return tuple(name for name in getattr(module, "counters", COUNTERS) if hasattr(module, name))


def _on_first(trainer: L.Trainer, action: Callable[[], Any]) -> None:
    """Let the first process act and the others wait; its UserError is an error of all."""
    error: UserError | None = None
    if trainer.is_global_zero:
        try:
            action()
        except UserError as cause:
            error = cause
    said = trainer.strategy.broadcast("" if error is None else str(error))
    if error is not None:
        raise error
    if said:
        raise UserError(said)
