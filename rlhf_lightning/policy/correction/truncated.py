from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.correction._mismatch import mismatch_of, over_row, with_metrics
from rlhf_lightning.policy.objective import ratio_of
from rlhf_lightning.registry import register


@register("policy_correction", "truncated")
def truncated_importance_weights(
    experience: Experience, *, clip_max: PositiveFloat = 2.0, level: Literal["token", "sequence"] = "token"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weight each token by its ratio of trainer to sampler probability, clipped at a maximum.

    Truncated importance sampling, TIS: weight min(p_old / p_sampled, clip_max) without gradient (Yao et al., 2025; Ionides, 2008).

    Details: docs/conventions.md#sampler-and-trainer-disagree.

    Args:
        experience: old_log_probs, sampled_log_probs and response_mask [B, T].
        clip_max: the largest weight; it bounds the variance, and biases only tokens that reach it.
        level: "token" takes each token's ratio: low variance, but biased, for it ignores the tokens before. "sequence" takes the
            product over the row for each of its tokens: unbiased below clip_max, its variance grows with length.

    Returns:
        The weights [B, T] for the policy's per-token loss, 0 outside the mask, and scalar metrics.
    """
    log_ratio = mismatch_of(experience)
    measured = log_ratio if level == "token" else over_row(log_ratio, experience.response_mask, mean=False)
    ratio = ratio_of(measured)
    return with_metrics(experience, log_ratio, ratio.clamp(max=clip_max), ratio > clip_max)
