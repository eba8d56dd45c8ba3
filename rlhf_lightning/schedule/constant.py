"""A constant learning rate."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf_lightning.optimization.parameters import Warmup, warmup_steps
from rlhf_lightning.registry import register


@register("schedule", "constant")
def constant(optimizer: Optimizer, steps: int, default_warmup: float, *, warmup: Warmup | None = None) -> LRScheduler:
    """A constant learning rate after a warm-up, as transformers' `constant_with_warmup`.

    Args:
        warmup: steps, or a fraction of the training; null: 0.1, in PPO 0.
    """
    from transformers.optimization import get_constant_schedule_with_warmup

    scheduler: LRScheduler = get_constant_schedule_with_warmup(optimizer, warmup_steps(warmup, default_warmup, steps))
    return scheduler
