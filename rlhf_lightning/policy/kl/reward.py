from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.policy.objective import KLPenalty
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import kl_estimate


@register("policy_kl", "reward")
class RewardKL(KLPenalty):
    """The KL penalty in the reward: reward - kl_coef * KL estimate per token.

    Ziegler et al. (2019, eq. 2); Schulman's estimators. Nothing is clamped: an outlier token shows in the reward. It comes after the
    other shapings but before those that need the complete rewards (whiten_rewards).

    Details: docs/conventions.md#kl-in-the-reward, docs/ppo_details.md#kl-to-the-reference-per-token-in.

    Args:
        estimator: k1 log ratio, k2 half its square, k3 never negative; verl clamps k3 to 10, OpenRLHF all to 10.
    """

    def __init__(self, *, estimator: Literal["k1", "k2", "k3"] = "k1") -> None:
        self.estimator = estimator

    def shape_rewards(self, scored: ScoredRollout) -> ScoredRollout:
        """Subtract the penalty; reads rewards, old_log_probs, ref_log_probs, response_mask [B, T], kl_coef."""
        per_token = kl_estimate(scored.old_log_probs, scored.ref_log_probs, self.estimator)
        penalty = torch.where(scored.response_mask.bool(), scored.kl_coef * per_token, torch.zeros_like(per_token))
        return dataclasses.replace(scored, rewards=scored.rewards - penalty)
