from __future__ import annotations

from pydantic import PositiveFloat

from rlhf_lightning.advantage._credit import group_centered_rewards, group_sum, to_experience
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.shaping.whiten_rewards import check_finite


@register("advantage", "grpo", needs=["groups"])
def grpo(scored: ScoredRollout, *, eps: PositiveFloat = 1e-6) -> Experience:
    """The response's reward less its group's mean, divided by the group's standard deviation.

    Shao et al. (2024), the same for each token; dr_grpo doesn't divide. r is the sum of the row's token rewards, so that a KL
    penalty counts: where the scores of a group are equal, the division makes advantages of size 1 of small differences in KL; the
    paper's KL is in the loss (policy_kl=loss). Unbiased standard deviation, eps added to it (verl, TRL). Equal rewards give
    exactly 0. A response alone in its group: 0, as in NeMo-RL; verl keeps the raw reward.

    Details: docs/conventions.md#grpo-s-deviation.

    Args:
        eps: added to the group's standard deviation; verl 1e-6, TRL 1e-4.
    """
    centred, size = group_centered_rewards(scored)
    std = (group_sum(centred**2, scored.group) / (size - 1).clamp(min=1)).sqrt()
    check_finite(std)
    return to_experience(scored, (centred / (std + eps))[:, None])
