from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import kl_estimate


@register("rollout_shaping", "kl")
def kl(scored: ScoredRollout, *, estimator: Literal["k1", "k2", "k3"] = "k1") -> ScoredRollout:
    """Each token pays for its distance from the reference: reward - kl_coef * KL estimate.

    Ziegler et al. (2019, eq. 2); Schulman's estimators. Nothing is clamped: a wild token shows in the reward.

    Args:
        scored: rewards, old_log_probs, ref_log_probs and response_mask [B, T]; kl_coef.
        estimator: k1 log ratio, k2 half its square, k3 never negative; verl clamps k3 to 10, OpenRLHF all to 10.
    """
    per_token = kl_estimate(scored.old_log_probs, scored.ref_log_probs, estimator)
    penalty = torch.where(scored.response_mask.bool(), scored.kl_coef * per_token, torch.zeros_like(per_token))
    return dataclasses.replace(scored, rewards=scored.rewards - penalty)
