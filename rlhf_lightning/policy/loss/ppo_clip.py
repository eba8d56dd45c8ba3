from __future__ import annotations

from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import clipped_surrogate, log_ratio_of, ratio_metrics, ratio_of
from rlhf_lightning.registry import register


@register("policy_loss", "ppo_clip")
def ppo_clip(
    experience: Experience, log_probs: Tensor, *, clip_ratio: PositiveFloat = 0.2, clip_ratio_high: PositiveFloat | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped surrogate.

    max(-ratio A, -clip(ratio, 1 - clip_ratio, 1 + clip_ratio_high) A) per token (Schulman et al., 2017, eq. 7). Deviation: a
    log-ratio beyond +-20 is held there (policy.objective).

    Details: docs/ppo_details.md#importance-ratio-and-clipped-surrogate, docs/conventions.md#log-ratio.

    Args:
        clip_ratio: how far the ratio may fall, and rise unless clip_ratio_high is given.
        clip_ratio_high: how far it may rise: "clip-higher" of DAPO (Yu et al., 2025) with 0.28.
    """
    log_ratio = log_ratio_of(experience, log_probs)
    ratio = ratio_of(log_ratio)
    high = clip_ratio if clip_ratio_high is None else clip_ratio_high
    loss, clipped = clipped_surrogate(ratio, experience.advantages, clip_ratio, high)
    return loss, ratio_metrics(experience, log_ratio, ratio, clipped)
