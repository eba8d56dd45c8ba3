from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Experience
from rlhf_lightning.registry import register


@register("policy_value_loss", "mse")
def mse(experience: Experience, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the squared error to the returns.

    0.5 (V - R)^2 per token.

    Args:
        experience: returns and response_mask [B, T].
        values: [B, T] of the critic being trained.

    Returns:
        The loss per token [B, T], before reduction, and no metrics.

    Raises:
        ConfigError: the advantage estimator made no returns.
    """
    return half_square(experience, values), {}


def half_square(experience: Experience, values: Tensor) -> Tensor:
    """Half the squared error [B, T] of values, 0 outside the mask. Raises ConfigError without returns."""
    if experience.returns is None:
        raise ConfigError("a value loss needs returns, and this advantage estimator makes none; choose advantage=gae")
    error = torch.where(experience.response_mask.bool(), values - experience.returns, torch.zeros_like(values))
    return error**2 / 2
