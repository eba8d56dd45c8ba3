"""The optimiser of supervised training: AdamW with a schedule that knows its length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn


class OptimizerSettings(Protocol):
    """The part of a section that says how to optimise."""

    learning_rate: float
    learning_rate_schedule: Any
    warmup_fraction: float
    weight_decay: float


def adamw(
    parameters: Iterable[nn.Parameter],
    settings: OptimizerSettings,
    steps: int,
    beside: Iterable[nn.Parameter] = (),
    beside_learning_rate: float = 0.0,
) -> dict[str, Any]:
    """AdamW (betas 0.9, 0.95, as language models are trained) on the parameters that are trained, its learning rate rising over the first
    steps and then constant or falling linearly to 0 over `steps`, as Lightning takes it.

    Args:
        beside: parameters with a learning rate of their own, on the same schedule, and without weight decay.
    """
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.requires_grad]},
        {"params": [p for p in beside if p.requires_grad], "lr": beside_learning_rate, "weight_decay": 0.0},
    ]
    trained = [group for group in groups if group["params"]]
    # One kernel for all of Adam's arithmetic; on a GPU it unscales gradients itself, which Lightning's clipping under 16-mixed refuses.
    fused = all(parameter.device.type == "cpu" for group in trained for parameter in group["params"])
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=fused)

    warmup = settings.warmup_fraction * steps

    def share(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        falling = max(0.0, 1.0 - step / steps) if settings.learning_rate_schedule == "linear" else 1.0
        return rising * falling

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
