"""A linear fall of the learning rate after a warm-up."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf_lightning.optimization.parameters import Warmup, warmup_steps
from rlhf_lightning.registry import register


@register("schedule", "linear")
def linear(optimizer: Optimizer, steps: int, default_warmup: float, *, warmup: Warmup | None = None) -> LRScheduler:
    """A linear fall to 0 after a linear rise from 0, as transformers' and TRL's `linear`.

    Args:
        warmup: steps, or a fraction of the training; null: 0.1, in PPO 0.
    """
    from transformers.optimization import get_linear_schedule_with_warmup

    scheduler: LRScheduler = get_linear_schedule_with_warmup(optimizer, warmup_steps(warmup, default_warmup, steps), steps)
    return scheduler
