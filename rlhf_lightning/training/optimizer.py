"""The optimiser of supervised training: AdamW with a schedule that knows its length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.training.settings import SupervisedSettings

MOVES = 0.5
"""The least share of weights in half precision that a step must be able to change."""


def adamw(
    parameters: Iterable[nn.Parameter],
    settings: SupervisedSettings,
    steps: int,
    beside: Iterable[nn.Parameter] = (),
    beside_learning_rate: float = 0.0,
) -> dict[str, Any]:
    """AdamW (betas 0.9, 0.95, as language models are trained) on the parameters that are trained, its learning rate rising over the first
    steps and then constant or falling linearly to 0 over `steps`, as Lightning takes it.

    Args:
        beside: parameters with a learning rate of their own, on the same schedule, and without weight decay.

    Raises:
        ConfigError: `check_steps`.
    """
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.requires_grad]},
        {"params": [p for p in beside if p.requires_grad], "lr": beside_learning_rate, "weight_decay": 0.0},
    ]
    trained = [group for group in groups if group["params"]]
    check_steps(groups[0]["params"], settings.learning_rate)
    # One kernel for all of Adam's arithmetic; on a GPU it unscales gradients itself, which Lightning's clipping under 16-mixed refuses.
    fused = all(parameter.device.type == "cpu" for group in trained for parameter in group["params"])
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=fused)
    # Nothing scales gradients on a CPU; Lightning's clipping under bf16-mixed takes a fused optimiser for one that unscales them.
    setattr(optimizer, "_step_supports_amp_scaling", False)

    warmup = settings.warmup_fraction * steps

    def share(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        falling = max(0.0, 1.0 - step / steps) if settings.learning_rate_schedule == "linear" else 1.0
        return rising * falling

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def check_steps(parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
    """Refuse to train half-precision weights at a learning rate that rounding swallows: Adam's steps are hardly larger than it, and
    bfloat16 has no number between a weight and 1/256 more. All processes together.

    Raises:
        ConfigError: fewer than MOVES of these weights would be changed by a step of that size.
    """
    halves = [parameter for parameter in parameters if parameter.dtype in (torch.bfloat16, torch.float16)]
    found: list[Any] = [(parameter + learning_rate != parameter).sum() for parameter in halves]
    moved = sum(int(number.full_tensor() if hasattr(number, "full_tensor") else number) for number in found)  # of all shards
    count = sum(parameter.numel() for parameter in halves)
    if moved < MOVES * count:
        raise ConfigError(
            f"the weights to train are in {str(halves[0].dtype).removeprefix('torch.')}, where a step of learning_rate={learning_rate:g} "
            f"changes {moved / count:.0%} of them and rounds away in the others: load them in float32 (backbone.dtype=float32) under "
            "trainer.precision=bf16-mixed, or train adapters, whose own weights are float32 (policy_tuning=lora, reward_tuning=lora)"
        )
