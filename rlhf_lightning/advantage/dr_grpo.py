from __future__ import annotations

from rlhf_lightning.advantage._credit import group_centered_rewards, to_experience
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register


@register("advantage", "dr_grpo", needs=["groups"])
def dr_grpo(scored: ScoredRollout) -> Experience:
    """The response's reward less its group's mean, not divided by anything.

    Dr. GRPO (Liu et al., 2025), the same for each token: the deviation that grpo divides by makes prompts that are nearly always or
    nearly never answered well count most. The paper's other half is the reduction: `policy_reduction=fixed_length`, for a mean over
    each response's own length lets long bad responses off. r is the sum of the row's token rewards, so that a KL penalty counts.
    It is rloo times (n - 1) / n.

    Details: docs/conventions.md#grpo-s-deviation.
    """
    centred, _ = group_centered_rewards(scored)
    return to_experience(scored, centred[:, None])
