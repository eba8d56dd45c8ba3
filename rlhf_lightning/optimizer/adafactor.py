"""Adafactor, which keeps a row and a column of averages for each matrix."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import NoDecay, TrainedParameters
from rlhf_lightning.registry import register


def check_supported(choices: Any) -> None:
    """Check before a model loads that the weights are whole. Raises ConfigError."""
    strategy = str(choices.config.trainer.get("strategy"))
    if strategy.startswith(("fsdp", "deepspeed")):
        raise ConfigError(
            f"optimizer=adafactor averages over whole rows and columns, and trainer.strategy={strategy} shares them out: choose "
            "optimizer=adamw, or trainer=ddp"
        )


@register("optimizer", "adafactor", check=check_supported)
def adafactor(
    trained: TrainedParameters,
    *,
    beta2_decay: float = -0.8,
    clip_threshold: PositiveFloat = 1.0,
    weight_decay: NonNegativeFloat | None = None,
    no_decay: tuple[NoDecay, ...] = (),
) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018), with almost no memory for its state.

    A step is relative to the size of the weights, and the learning rate at most 1 / sqrt(step): it takes larger rates than Adam, 1e-3 to
    1e-2.

    Args:
        beta2_decay: exponent of the step in 1 - step ** beta2_decay, the decay rate of the average.
        clip_threshold: largest root mean square of an update.
        weight_decay: fraction of a weight that a step at learning rate 1 removes; null: as adamw's.
        no_decay: parameters without weight decay: biases, norms, embeddings.
    """
    groups = trained.param_groups(weight_decay, no_decay)
    return torch.optim.Adafactor(groups, lr=trained.learning_rate, beta2_decay=beta2_decay, d=clip_threshold)
