from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.tensors import masked_var, masked_whiten


@register("rollout_shaping", "whiten_rewards", needs=["rewards"])
def whiten_rewards(scored: ScoredRollout) -> ScoredRollout:
    """Scale token rewards to variance 1 over the batch, keeping their mean; put it last.

    The KL penalty of policy_kl=reward comes before it.

    As in TRL's PPO with whiten_rewards: unbiased variance over the response tokens, eps 1e-8 under the root. 0 outside the mask.

    Details: docs/ppo_details.md#reward-whitening-without-mean-shift.

    Args:
        scored: rewards and response_mask [B, T].

    Raises:
        DataError: rewards too large to square, or not numbers.
    """
    scaled = whiten_values(scored.rewards, scored.response_mask, shift_mean=False)
    return dataclasses.replace(scored, rewards=torch.where(scored.response_mask.bool(), scaled, torch.zeros_like(scaled)))


def whiten_values(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """masked_whiten of [B, T]. Raises DataError if values are too large to square."""
    check_finite(masked_var(values, mask))
    return masked_whiten(values, mask, shift_mean)


def check_finite(spread: Tensor) -> None:
    """Check that variances or deviations are finite. Raises DataError."""
    if not bool(torch.isfinite(spread).all()):
        raise DataError(
            f"the rewards are too large to normalise in {spread.dtype}, or not numbers; "
            "look at the scorer, or bound its scores: rollout_shaping=[clip_score,...]"
        )
