from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.correction._mismatch import mismatch_of, over_row, with_metrics
from rlhf_lightning.policy.objective import ratio_of
from rlhf_lightning.registry import register


@register("policy_correction", "masked")
def masked_importance_weights(
    experience: Experience,
    *,
    clip_min: Annotated[float, Field(ge=0, le=1)] = 0.5,
    clip_max: Annotated[float, Field(ge=1)] = 5.0,
    level: Literal["token", "sequence"] = "token",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weight each token by its ratio of trainer to sampler probability; 0 outside of bounds.

    IcePop (Ling team, 2025), masked importance sampling: weight p_old / p_sampled without gradient within the bounds, else 0. On
    tokens of large disagreement the ratio is mostly noise of the kernels.

    Details: docs/conventions.md#sampler-and-trainer-disagree.

    Args:
        experience: old_log_probs, sampled_log_probs and response_mask [B, T].
        clip_min: lowest ratio that counts.
        clip_max: highest ratio that counts.
        level: "token" compares each token's ratio; "sequence" the geometric mean over the row, and drops complete responses; the weights
            are the tokens' ratios either way (OpenRLHF's seq-mask-tis; its bounds are as narrow as 0.99 and 1.001).

    Returns:
        The weights [B, T] for the policy's per-token loss, 0 outside the mask, and scalar metrics.
    """
    log_ratio = mismatch_of(experience)
    ratio = ratio_of(log_ratio)
    measured = ratio if level == "token" else ratio_of(over_row(log_ratio, experience.response_mask, mean=True))
    outside = (measured < clip_min) | (measured > clip_max)
    return with_metrics(experience, log_ratio, torch.where(outside, torch.zeros_like(ratio), ratio), outside)
