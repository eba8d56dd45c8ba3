"""The `checkpoint` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.registry import section


@section("checkpoint")
@dataclass
class CheckpointSettings:
    """The checkpoints of a run that isn't finished, from which `resume=RUN` continues.

    Attributes:
        every: steps (of PPO: updates) between checkpoints; a signal and the end of a training also make one.
        keep: number of complete checkpoints to keep of each training.
        stalled_after: minutes without a finished batch after which a training is ended with code 1; the stacks of its threads are then in
            the run's folder, stalled_RANK.txt, and resume=RUN continues from the last checkpoint. null: never.
        keep_finished: keep the checkpoints of a finished run; its models are folders of their own.
        monitor: metric of evaluation.every by which the best weights are kept, such as evaluation/loss or evaluation/score: the stage's
            output is then the best evaluation's. null: the last weights.
        mode: whether the largest value of `monitor` is the best; null: the smallest of a loss, a KL or a length, the largest of another.
        accept_changed_inputs: continue a run although its input files have changed since its start.
    """

    every: PositiveInt = 20
    keep: PositiveInt = 2
    stalled_after: PositiveFloat | None = 120.0
    keep_finished: bool = False
    monitor: str | None = None
    mode: Literal["max", "min"] | None = None
    accept_changed_inputs: bool = False

    @property
    def is_max(self) -> bool:
        """True if the largest value of `monitor` is the best."""
        return self.mode == "max" if self.mode else not (self.monitor or "").endswith(("loss", "kl", "length"))
