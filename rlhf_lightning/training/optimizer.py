"""The optimizer and the schedule of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import TrainedParameters
from rlhf_lightning.optimizer.adamw import adamw
from rlhf_lightning.schedule.anneal import anneal

MIN_MOVED = 0.5
"""Smallest fraction of half-precision weights that a step must change."""


@dataclass(frozen=True)
class Optimization:
    """The options of the groups optimizer and schedule."""

    optimizer: Callable[[TrainedParameters], torch.optim.Optimizer] = adamw
    schedule: Callable[[torch.optim.Optimizer, int, float], LRScheduler] = anneal

    def configure(self, trained: TrainedParameters, steps: int) -> dict[str, Any]:
        """The optimizer and its schedule, as Lightning takes them.

        Args:
            steps: of the training; of PPO: updates.

        Raises:
            ConfigError: `check_steps`, or a warm-up as long as the training.
        """
        for group in trained.groups:
            check_steps((member.parameter for member in group.members), group.learning_rate)
        optimizer = self.optimizer(trained)
        schedule = self.schedule(optimizer, steps, trained.defaults.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def check_steps(parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
    """Check that steps of half-precision weights aren't rounded away. Collective: call it on every rank.

    Adam's steps are hardly larger than the learning rate, and bfloat16 has no number between a weight and 1/256 more.

    Raises:
        ConfigError: fewer than MIN_MOVED of these weights would be changed by a step of that size.
    """
    halves = [parameter for parameter in parameters if parameter.dtype in (torch.bfloat16, torch.float16)]
    changed: list[Any] = [(parameter + learning_rate != parameter).sum() for parameter in halves]
    moved = sum(int(number.full_tensor() if hasattr(number, "full_tensor") else number) for number in changed)  # of all shards
    count = sum(parameter.numel() for parameter in halves)
    if moved < MIN_MOVED * count:
        raise ConfigError(
            f"the weights to train are in {str(halves[0].dtype).removeprefix('torch.')}, where a step of learning_rate={learning_rate:g} "
            f"changes {moved / count:.0%} of them and rounds away in the others: load them in float32 (backbone.dtype=float32) under "
            "trainer.precision=bf16-mixed, or train adapters, whose own weights are float32 (policy_tuning=lora, reward_tuning=lora)"
        )
