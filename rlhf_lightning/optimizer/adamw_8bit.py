"""AdamW with averages of eight bits."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import Betas, NoDecay, TrainedParameters
from rlhf_lightning.registry import register


def check_supported(choices: Any) -> None:
    """Check before a model loads that the package is installed and the weights are whole.

    Raises:
        ConfigError: no bitsandbytes, or a strategy that shards the weights.
    """
    strategy = str(choices.config.trainer.get("strategy"))
    if strategy.startswith(("fsdp", "deepspeed")):
        raise ConfigError(
            f"optimizer=adamw_8bit updates whole weights, and trainer.strategy={strategy} shares them out: choose optimizer=adamw or "
            "adafactor, or trainer=ddp"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("optimizer=adamw_8bit needs another package: pip install 'rlhf-lightning[bitsandbytes]'")


@register("optimizer", "adamw_8bit", check=check_supported)
def adamw_8bit(
    trained: TrainedParameters,
    *,
    betas: Betas | None = None,
    eps: PositiveFloat | None = None,
    weight_decay: NonNegativeFloat | None = None,
    no_decay: tuple[NoDecay, ...] = (),
) -> torch.optim.Optimizer:
    """AdamW with averages of eight bits in blocks (Dettmers et al. 2022); made for GPUs.

    A quarter of AdamW's memory. Tensors of fewer than 4096 numbers keep averages of 32 bits.

    Args:
        betas: decay rates of the two averages; null: as adamw's.
        eps: added to the divisor of a step; null: as adamw's.
        weight_decay: fraction of a weight that a step at learning rate 1 removes; null: as adamw's.
        no_decay: parameters without weight decay: biases, norms, embeddings.
    """
    from bitsandbytes.optim import AdamW8bit

    defaults = trained.defaults
    optimizer: torch.optim.Optimizer = AdamW8bit(
        trained.param_groups(weight_decay, no_decay),
        lr=trained.learning_rate,
        betas=defaults.betas if betas is None else betas,
        eps=defaults.eps if eps is None else eps,
    )
    return optimizer
