from __future__ import annotations

from rlhf_lightning.advantage._credit import group_centered_rewards, to_experience
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.shaping.whiten_rewards import whiten_values


@register("advantage", "reinforce_pp_baseline", needs=["groups"])
def reinforce_pp_baseline(scored: ScoredRollout) -> Experience:
    """REINFORCE++ with a baseline: the reward less its group's mean, whitened over the batch.

    Hu (2025), in verl's form: the group gives the mean, all response tokens of the batch give the deviation, which a group of four
    can't say well. r is the sum of the row's token rewards; the paper has its KL in the loss, as k2: policy_kl=loss. A response
    alone in its group is at 0 before whitening; verl keeps the raw reward.

    Details: docs/conventions.md#reinforce-with-a-baseline.
    """
    centred, _ = group_centered_rewards(scored)
    mask = scored.response_mask
    return to_experience(scored, whiten_values(centred[:, None].expand(mask.shape), mask))
