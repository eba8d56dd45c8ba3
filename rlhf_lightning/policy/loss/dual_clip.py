from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import clipped_surrogate, log_ratio_of, ratio_metrics, ratio_of
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import masked_mean


@register("policy_loss", "dual_clip")
def dual_clip(
    experience: Experience,
    log_probs: Tensor,
    *,
    clip_ratio: PositiveFloat = 0.2,
    clip_ratio_high: PositiveFloat | None = None,
    clip_ratio_c: Annotated[float, Field(gt=1)] = 3.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped surrogate with a bound on the ratio for negative advantages.

    min(max(...), -clip_ratio_c A) where A < 0, else ppo_clip (Ye et al., 2020, eq. 5): one token that became very likely and was bad
    can't dominate the update. With a bound above 1 + clip_ratio_high, the same as `delta` in TRL.

    Details: docs/conventions.md#dual-clip.

    Args:
        clip_ratio: how far the ratio may fall, and rise unless clip_ratio_high is given.
        clip_ratio_high: how far it may rise.
        clip_ratio_c: bound of the ratio where A < 0; c in the paper.

    Returns:
        The loss per token [B, T], before reduction, and scalar metrics: those of ppo_clip and policy/clipfrac_lower_avg.
    """
    log_ratio = log_ratio_of(experience, log_probs)
    ratio = ratio_of(log_ratio)
    high = clip_ratio if clip_ratio_high is None else clip_ratio_high
    loss, clipped = clipped_surrogate(ratio, experience.advantages, clip_ratio, high)
    highest = -clip_ratio_c * experience.advantages
    reached = (experience.advantages < 0) & (loss > highest)
    metrics = ratio_metrics(experience, log_ratio, ratio, clipped)
    metrics["policy/clipfrac_lower_avg"] = masked_mean(reached.to(ratio.dtype), experience.response_mask)
    return torch.where(reached, highest, loss), metrics
