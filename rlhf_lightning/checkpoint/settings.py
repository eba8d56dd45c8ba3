"""The `checkpoint` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.registry import section


@section("checkpoint")
@dataclass
class CheckpointSettings:
    """What a run keeps of its trainings until it is finished, so that `resume=RUN` goes on with it.

    Attributes:
        every: steps (of PPO: updates) from one checkpoint to the next; a signal and the end of a training make one too.
        keep: whole checkpoints of a training that stay while newer ones come.
        stalled_after: minutes without a finished batch after which a training is ended with code 1; the stacks of its threads are then in
            the run's folder, stalled_RANK.txt, and resume=RUN goes on from the last checkpoint. null: never.
        keep_finished: leave the checkpoints of a run that is finished; its models are folders of their own.
        accept_changed_inputs: go on with a run although files that it read when it began have another content now.
    """

    every: PositiveInt = 20
    keep: PositiveInt = 2
    stalled_after: PositiveFloat | None = 120.0
    keep_finished: bool = False
    accept_changed_inputs: bool = False
