from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import LIMIT, KLPenalty, log_ratio_of, ratio_of, within_mask
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import kl_estimate, masked_mean


@register("policy_kl", "loss")
class LossKL(KLPenalty):
    """The KL penalty in the loss, instead of in the reward: kl_coef * KL estimate per token.

    An unbiased estimate of the KL needn't have an unbiased gradient. On tokens of the present policy the mean gradient of k2 is the
    KL's; that of k1 is 0: unweighted k1 teaches nothing; that of k3 (GRPO's, Shao et al., 2024, eq. 4) is the gradient of
    KL(reference, policy), equal to first order (Tang and Munos, 2025; Liu et al., 2025). With `weighted` each estimate is multiplied by
    new over old probability, gradient through both: k1 and k3 then have the gradient of the token's KL, also off-policy (DeepSeek-V3.2,
    2025, eq. 7; TRL's use_bias_correction_kl), but k2 no longer has. Either way a token's KL teaches that token's probability only; in
    the reward it also teaches the tokens before it.

    Deviation: a log-ratio to the reference below -20 is clamped in k3, and one to the old policy beyond +-20 in the weight.

    Details: docs/conventions.md#kl-in-the-loss, docs/ppo_details.md#kl-in-the-loss-instead.

    Args:
        estimator: k1 log ratio, k2 half its square, k3 never negative (tensors.kl_estimate).
        weighted: multiply by the ratio to the old policy.
    """

    def __init__(self, *, estimator: Literal["k1", "k2", "k3"] = "k2", weighted: bool = False) -> None:
        self.estimator, self.weighted = estimator, weighted

    def per_token_loss(self, experience: Experience, log_probs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Penalty per token [B, T], before reduction, and its mean as the metric loss/kl_penalty_avg.

        Args:
            experience: old_log_probs, ref_log_probs and response_mask [B, T]; kl_coef.
            log_probs: [B, T] of the policy being trained.
        """
        mask = experience.response_mask
        log_ratio = within_mask(log_probs, mask) - within_mask(experience.ref_log_probs, mask)
        if self.estimator == "k3":
            log_ratio = log_ratio.clamp(min=-LIMIT)
        estimate = kl_estimate(log_ratio, torch.zeros_like(log_ratio), self.estimator)
        if self.weighted:
            estimate = estimate * ratio_of(log_ratio_of(experience, log_probs))
        penalty = experience.kl_coef * estimate
        return penalty, {"loss/kl_penalty_avg": masked_mean(penalty.detach(), mask)}
