"""The end of a training: with its last step, or early."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

FINISHED = "finished"


@dataclass(frozen=True)
class Ending:
    """The end of a training.

    Attributes:
        reason: FINISHED; or max_time, early_stopping, max_steps, a reason of the module (alarm), or callback for another one's decision.
        steps, planned: batches (of PPO: updates) done, and of the complete training.
    """

    reason: str
    steps: int
    planned: int

    @property
    def is_early(self) -> bool:
        return self.reason != FINISHED

    def __str__(self) -> str:
        return f"ended early, by {self.reason}, after {self.steps} of {self.planned} steps"

    def fields(self) -> dict[str, Any]:
        """The fields for a JSON file."""
        return asdict(self)


def planned_steps(trainer: L.Trainer) -> int:
    """Batches of the complete training."""
    return max(0, trainer.max_epochs or 0) * int(trainer.num_training_batches)


def end_of(trainer: L.Trainer, steps: int) -> Ending:
    """The ending of a training that takes no further step, by what stopped it."""
    planned = planned_steps(trainer)
    if steps >= planned:
        return Ending(FINISHED, steps, planned)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    reason = getattr(trainer.lightning_module, "stop_reason", "")
    remaining = [callback.time_remaining() for callback in callbacks if isinstance(callback, Timer)]
    if not reason and any(seconds is not None and seconds <= 0 for seconds in remaining):
        reason = "max_time"
    stopping = (callback for callback in callbacks if isinstance(callback, EarlyStopping))
    if not reason and any(callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED for callback in stopping):
        reason = "early_stopping"
    if not reason and 0 <= trainer.max_steps <= trainer.global_step:
        reason = "max_steps"
    return Ending(reason or "callback", steps, planned)
