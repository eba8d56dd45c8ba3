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
    weight_decay: float


def adamw(parameters: Iterable[nn.Parameter], settings: OptimizerSettings, steps: int) -> dict[str, Any]:
    """AdamW on the parameters that are trained, its learning rate constant or falling linearly to 0 over `steps`, as Lightning takes it."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def share(step: int) -> float:
        return max(0.0, 1.0 - step / steps) if settings.learning_rate_schedule == "linear" else 1.0

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
