from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.ratio import LIMIT, log_ratio_of, ratio_of, within_mask
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import kl_estimate, masked_mean


@register("policy_penalty", "kl")
def kl(
    experience: Experience, log_probs: Tensor, *, estimator: Literal["k1", "k2", "k3"] = "k2", weighted: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """The KL to the reference in the loss, instead of in the reward: kl_coef * KL estimate per token.

    The coefficient is policy_kl_control's. An unbiased estimate of the KL needn't have an unbiased gradient. On tokens of the
    present policy the mean gradient of k2 is the KL's own; that of k1 is 0, so that unweighted k1 teaches nothing; that of k3
    (GRPO's, Shao et al., 2024, eq. 4) is the gradient of KL(reference, policy), equal to first order (Tang and Munos, 2025; Liu et
    al., 2025). With `weighted` each estimate is multiplied by new over old probability, gradient through both: k1 and k3 then have
    the gradient of the KL of the token, also after steps away from the policy that drew it (DeepSeek-V3.2, 2025, eq. 7; TRL's
    use_bias_correction_kl), and k2 has it no more. Either way a token's KL teaches that token's probability alone; in the reward it
    also teaches the tokens before it.

    Deviation: a log-ratio to the reference beyond -20 is held there in k3, and one to the old policy beyond +-20 in the weight.

    Args:
        experience: old_log_probs, ref_log_probs and response_mask [B, T]; kl_coef.
        log_probs: [B, T] of the policy being trained.
        estimator: k1 log ratio, k2 half its square, k3 never negative (tensors.kl_estimate).
        weighted: multiply by the ratio to the old policy.

    Returns:
        The penalty per token [B, T], before reduction, and the metric loss/kl_penalty_avg, its mean over the tokens.
    """
    mask = experience.response_mask
    apart = within_mask(log_probs, mask) - within_mask(experience.ref_log_probs, mask)
    if estimator == "k3":
        apart = apart.clamp(min=-LIMIT)
    estimate = kl_estimate(apart, torch.zeros_like(apart), estimator)
    if weighted:
        estimate = estimate * ratio_of(log_ratio_of(experience, log_probs))
    penalty = experience.kl_coef * estimate
    return penalty, {"loss/kl_penalty_avg": masked_mean(penalty.detach(), mask)}
