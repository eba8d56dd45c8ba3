"""The optimiser of supervised training: AdamW with a schedule that knows its length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.training.settings import SupervisedSettings

MIN_MOVED = 0.5
"""Smallest fraction of half-precision weights that a step must change."""


def adamw(
    parameters: Iterable[nn.Parameter],
    settings: SupervisedSettings,
    steps: int,
    loss_parameters: Iterable[nn.Parameter] = (),
    loss_learning_rate: float = 0.0,
) -> dict[str, Any]:
    """AdamW and its learning-rate schedule, as Lightning takes them.

    Betas are 0.9 and 0.95, as language models are trained. The learning rate rises over the warm-up, then stays or falls linearly to 0.

    Args:
        steps: of the training.
        loss_parameters: with a learning rate of their own, on the same schedule, and without weight decay.

    Raises:
        ConfigError: `check_steps`.
    """
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.requires_grad]},
        {"params": [p for p in loss_parameters if p.requires_grad], "lr": loss_learning_rate, "weight_decay": 0.0},
    ]
    trained = [group for group in groups if group["params"]]
    check_steps(groups[0]["params"], settings.learning_rate)
    # One kernel for all of Adam's arithmetic; on a GPU it unscales gradients itself, which Lightning's clipping under 16-mixed refuses.
    fused = all(parameter.device.type == "cpu" for group in trained for parameter in group["params"])
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=fused)
    # Nothing scales gradients on a CPU; Lightning's clipping under bf16-mixed takes a fused optimiser for one that unscales them.
    setattr(optimizer, "_step_supports_amp_scaling", False)

    warmup = settings.warmup_fraction * steps

    def learning_rate_factor(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
        falling = max(0.0, 1.0 - step / steps) if settings.learning_rate_schedule == "linear" else 1.0
        return rising * falling

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor)
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
