"""The `checkpoint` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt

from rlhf_lightning.registry import section


@section("checkpoint")
@dataclass
class CheckpointSettings:
    """What a run keeps of its trainings until it is finished, so that `resume=RUN` goes on with it.

    Attributes:
        every: steps (of PPO: updates) from one checkpoint to the next; a signal and the end of a training make one too.
        keep: whole checkpoints of a training that stay while newer ones come.
        keep_finished: leave the checkpoints of a run that is finished; its models are folders of their own.
    """

    every: PositiveInt = 20
    keep: PositiveInt = 2
    keep_finished: bool = False
