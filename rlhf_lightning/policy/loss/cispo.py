from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import log_ratio_of, ratio_metrics, ratio_of, within_mask
from rlhf_lightning.registry import register


@register("policy_loss", "cispo")
def cispo(
    experience: Experience,
    log_probs: Tensor,
    *,
    clip_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0,
    clip_ratio_high: PositiveFloat = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """CISPO: REINFORCE weighted by the clipped ratio, so that no token loses its gradient.

    -sg(clip(ratio, 1 - clip_ratio, 1 + clip_ratio_high)) A log p per token, sg stopping the gradient (MiniMax-M1, 2025, eq. 4
    and 5).

    Details: docs/conventions.md#cispo-s-bounds.

    Args:
        clip_ratio: how far the weight may fall; 1 is no lower bound, as in the paper and in TRL.
        clip_ratio_high: how far it may rise. TRL's `epsilon_high` is the bound itself, this plus 1.
    """
    log_ratio = log_ratio_of(experience, log_probs)
    ratio = ratio_of(log_ratio).detach()
    weight = ratio.clamp(1 - clip_ratio, 1 + clip_ratio_high)
    loss = -weight * experience.advantages * within_mask(log_probs, experience.response_mask)
    return loss, ratio_metrics(experience, log_ratio, ratio, weight != ratio)
