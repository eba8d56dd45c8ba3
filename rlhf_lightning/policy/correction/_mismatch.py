"""Mismatch of sampler and trainer: log-ratios and the metrics of the corrections.

The sampler may compute in other kernels or another precision; then even the first minibatch is off-policy (Yao et al., 2025, "Your
efficient RL framework secretly brings you off-policy RL training").
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import within_mask
from rlhf_lightning.tensors import masked_mean


def mismatch_of(experience: Experience) -> Tensor:
    """Log-ratio [B, T] of trainer to sampler per token, without gradient; 0 outside the mask."""
    mask = experience.response_mask
    return (within_mask(experience.old_log_probs, mask) - within_mask(experience.sampled_log_probs, mask)).detach()


def over_row(log_ratio: Tensor, mask: Tensor, mean: bool) -> Tensor:
    """Sum of each row's log-ratios at each of its tokens, [B, T]; with `mean` their mean."""
    total = log_ratio.sum(dim=1, keepdim=True)
    lengths = mask.to(log_ratio.dtype).sum(dim=1, keepdim=True).clamp(min=1)
    return (total / lengths if mean else total).expand_as(log_ratio)


def with_metrics(experience: Experience, log_ratio: Tensor, weights: Tensor, cut: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The weights [B, T], 0 outside the mask, and scalars over the response tokens.

    policy/sampler_kl_avg is the k1 estimate of KL(sampler, trainer) in nats, policy/correction_avg the mean weight,
    policy/correctionfrac_avg the fraction of tokens that were `cut`.
    """
    mask = experience.response_mask
    metrics = {
        "policy/sampler_kl_avg": masked_mean(-log_ratio, mask),
        "policy/correction_avg": masked_mean(weights, mask),
        "policy/correctionfrac_avg": masked_mean(cut.to(weights.dtype), mask),
    }
    return torch.where(mask.bool(), weights, torch.zeros_like(weights)), metrics
