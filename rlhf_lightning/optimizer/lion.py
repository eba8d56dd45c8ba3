"""Lion, which steps by the sign of an average."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from pydantic import NonNegativeFloat

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.optimization.parameters import Betas, NoDecay, TrainedParameters
from rlhf_lightning.registry import register


def check_installed(choices: Any) -> None:
    """Check before a model loads that the package is installed. Raises ConfigError."""
    if importlib.util.find_spec("lion_pytorch") is None:
        raise ConfigError("optimizer=lion needs another package: pip install 'rlhf-lightning[lion]'")


@register("optimizer", "lion", check=check_installed)
def lion(
    trained: TrainedParameters,
    *,
    betas: Betas = (0.9, 0.99),
    weight_decay: NonNegativeFloat | None = None,
    no_decay: tuple[NoDecay, ...] = (),
) -> torch.optim.Optimizer:
    """Lion: one average, and steps of one size (Chen et al. 2023).

    It takes 3 to 10 times smaller learning rates than Adam.

    Args:
        betas: decay rates of the average, for the step and for the average itself.
        weight_decay: fraction of a weight that a step at learning rate 1 removes; null: as adamw's. It
            takes 3 to 10 times as much as Adam.
        no_decay: parameters without weight decay: biases, norms, embeddings.
    """
    from lion_pytorch import Lion

    optimizer: torch.optim.Optimizer = Lion(trained.param_groups(weight_decay, no_decay), lr=trained.learning_rate, betas=betas)
    return optimizer
