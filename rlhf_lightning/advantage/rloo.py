from __future__ import annotations

from rlhf_lightning.advantage._credit import group_centered_rewards, to_experience
from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.registry import register


@register("advantage", "rloo", needs=["groups"])
def rloo(scored: ScoredRollout) -> Experience:
    """The response's reward less the mean reward of the other responses to its prompt.

    A = r - mean of the others = n / (n - 1) * (r - mean of all), the same for each token (Kool et al., 2019; Ahmadian et al.,
    2024). r is the sum of the row's token rewards, so that a KL penalty counts. A response alone in its group has nothing to be
    compared with: 0, as in NeMo-RL and verl's vectorised form; verl's loop keeps the raw reward.

    Details: docs/conventions.md#a-response-alone-in-its-group.
    """
    centred, size = group_centered_rewards(scored)
    return to_experience(scored, (centred * size / (size - 1).clamp(min=1))[:, None])
