"""The default schedule: the learning rate falls from the first step."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from rlhf_lightning.optimization.parameters import Warmup, warmup_steps
from rlhf_lightning.registry import register


@register("schedule", "anneal")
def anneal(optimizer: Optimizer, steps: int, default_warmup: float, *, warmup: Warmup | None = None) -> LambdaLR:
    """A linear fall to 0 over all steps, times a warm-up whose first step isn't 0.

    Without a warm-up it is that of PPO's reference implementations (Huang et al. 2022, detail 4), and linear. With one it differs from
    linear, whose first step is 0, and whose fall begins after the warm-up.

    Args:
        warmup: steps, or a fraction of the training; null: 0.1, in PPO 0.
    """
    warmup_steps(warmup, default_warmup, steps)  # rejects one as long as the training
    fraction = default_warmup if warmup is None else warmup
    rise = fraction if isinstance(fraction, int) else fraction * steps

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / rise) if rise else 1.0
        return rising * max(0.0, 1.0 - step / steps)

    return LambdaLR(optimizer, factor)
