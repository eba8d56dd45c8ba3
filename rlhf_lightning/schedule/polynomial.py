"""A polynomial fall of the learning rate."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import Warmup, warmup_steps
from rlhf_lightning.registry import register


@register("schedule", "polynomial")
def polynomial(
    optimizer: Optimizer,
    steps: int,
    default_warmup: float,
    *,
    warmup: Warmup | None = None,
    power: PositiveFloat = 2.0,
    lr_end: NonNegativeFloat = 0.0,
) -> LRScheduler:
    """A polynomial fall after a warm-up, as transformers' `polynomial`.

    Args:
        warmup: steps, or a fraction of the training; null: 0.1, in PPO 0.
        power: 1 falls linearly.
        lr_end: learning rate at the end; that of a group with another rate is in the same proportion.

    Raises:
        ConfigError: lr_end isn't below the learning rate.
    """
    from transformers.optimization import get_polynomial_decay_schedule_with_warmup

    rate = optimizer.defaults["lr"]
    if lr_end >= rate:
        raise ConfigError(f"schedule.lr_end={lr_end:g} must be below the learning rate, which is {rate:g}")
    rise = warmup_steps(warmup, default_warmup, steps)
    scheduler: LRScheduler = get_polynomial_decay_schedule_with_warmup(optimizer, rise, steps, lr_end=lr_end, power=power)
    return scheduler
