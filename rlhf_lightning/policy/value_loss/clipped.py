from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.value_loss.mse import half_square
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import masked_mean


@register("policy_value_loss", "clipped")
def clipped_value_loss(experience: Experience, values: Tensor, *, clip_range: PositiveFloat = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the squared error to the returns, with the value clipped to the old one.

    0.5 max((V - R)^2, (clip(V, V_old - clip_range, V_old + clip_range) - R)^2) per token, as in OpenAI's baselines and TRL. The
    range is in units of reward.

    Details: docs/ppo_details.md#clipped-value-loss, docs/conventions.md#value-loss.

    Args:
        experience: values (old), returns and response_mask [B, T].
        values: [B, T] of the critic being trained.
        clip_range: maximal distance from the old value.

    Returns:
        The loss per token [B, T], before reduction, and the metric val/clipfrac_avg: the fraction of tokens clipped.

    Raises:
        ConfigError: no old values, or no returns.
    """
    if experience.values is None:
        raise ConfigError("policy_value_loss=clipped needs the critic's old values; choose a policy with a value head")
    clipped_values = values.clamp(experience.values - clip_range, experience.values + clip_range)
    plain, bounded = half_square(experience, values), half_square(experience, clipped_values)
    fraction = masked_mean((bounded > plain).to(values.dtype), experience.response_mask)
    return torch.maximum(plain, bounded), {"val/clipfrac_avg": fraction}
