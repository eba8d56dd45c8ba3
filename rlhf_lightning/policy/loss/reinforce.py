from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import log_ratio_of, ratio_metrics, ratio_of, within_mask
from rlhf_lightning.registry import register


@register("policy_loss", "reinforce")
def reinforce(experience: Experience, log_probs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain policy gradient: -A log p.

    Per token (Williams, 1992), with no correction for steps away from the behaviour policy: for one epoch per rollout.

    Details: docs/ppo_details.md#other-objectives.
    """
    log_ratio = log_ratio_of(experience, log_probs)
    loss = -experience.advantages * within_mask(log_probs, experience.response_mask)
    return loss, ratio_metrics(experience, log_ratio, ratio_of(log_ratio), torch.zeros_like(log_ratio, dtype=torch.bool))
