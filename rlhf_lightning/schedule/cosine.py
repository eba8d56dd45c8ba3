"""A fall of the learning rate along a cosine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf_lightning.optimization.parameters import Warmup, warmup_steps
from rlhf_lightning.registry import register


@register("schedule", "cosine")
def cosine(
    optimizer: Optimizer,
    steps: int,
    default_warmup: float,
    *,
    warmup: Warmup | None = None,
    num_cycles: PositiveFloat = 0.5,
    min_lr_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> LRScheduler:
    """A fall along a cosine after a warm-up (Loshchilov and Hutter 2017).

    As transformers' `cosine` and `cosine_with_min_lr`.

    Args:
        warmup: steps, or a fraction of the training; null: 0.1, in PPO 0.
        num_cycles: waves of the cosine; 0.5 falls once.
        min_lr_rate: fraction of the learning rate at the end.
    """
    from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup

    rise = warmup_steps(warmup, default_warmup, steps)
    scheduler: LRScheduler = get_cosine_with_min_lr_schedule_with_warmup(optimizer, rise, steps, num_cycles, min_lr_rate=min_lr_rate)
    return scheduler
