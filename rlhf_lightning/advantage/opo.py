from __future__ import annotations

from rlhf_lightning.advantage._credit import group_sum, row_rewards, to_experience
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register


@register("advantage", "opo", needs=["groups"])
def opo(scored: ScoredRollout) -> Experience:
    """The response's reward less its group's length-weighted mean, the baseline of least variance.

    A = r - sum(length * r) / sum(length), the same for each token (Hao et al., 2025), for gradients that grow with length. r is
    the sum of the row's token rewards. A response alone in its group: 0, as the formula says; verl keeps the raw reward.

    Details: docs/conventions.md#equal-rewards-in-a-group.
    """
    rewards = row_rewards(scored)
    lengths = scored.response_mask.to(rewards.dtype).sum(dim=1)
    baseline = group_sum(lengths * rewards, scored.group) / group_sum(lengths, scored.group).clamp(min=1)
    return to_experience(scored, (rewards - baseline)[:, None])
