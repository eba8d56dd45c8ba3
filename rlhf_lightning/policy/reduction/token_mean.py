from __future__ import annotations

from torch import Tensor

from rlhf_lightning.registry import register
from rlhf_lightning.tensors import masked_mean


@register("policy_reduction", "token_mean")
def token_mean(per_token: Tensor, mask: Tensor) -> Tensor:
    """The mean over all response tokens of the batch: long responses weigh more.

    sum(loss * mask) / sum(mask) of [B, T]; PPO's and DAPO's (Yu et al., 2025, eq. 8). 0 with no gradient where nothing counts.

    Details: docs/conventions.md#empty-mask, docs/ppo_details.md#length-bias.
    """
    return masked_mean(per_token, mask)
