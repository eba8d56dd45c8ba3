"""Example plugin: `advantage=batch_mean`, an advantage estimator in one file."""

from __future__ import annotations

from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register


@register("advantage", "batch_mean")
def batch_mean(scored: ScoredRollout, *, scale_by_std: bool = False) -> Experience:
    """REINFORCE with a mean baseline: total reward less the batch's mean, on every token.

    Args:
        scale_by_std: divide by the standard deviation of the batch's total rewards.
    """
    totals = (scored.rewards * scored.response_mask).sum(1)
    advantages = totals - totals.mean()
    if scale_by_std:
        advantages = advantages / totals.std().clamp(min=1e-6)
    return Experience.of(scored, advantages[:, None] * scored.response_mask)
