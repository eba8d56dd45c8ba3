from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from rlhf_lightning.registry import register


@register("policy_reduction", "fixed_length")
def fixed_length(per_token: Tensor, mask: Tensor, *, length: PositiveInt = 256) -> Tensor:
    """The sum over all response tokens divided by a constant length per response: no bias by length.

    sum(loss * mask) / (B * length) of [B, T]; Dr. GRPO's (Liu et al., 2025). Every row counts, also one without tokens. 0 with no
    gradient where nothing counts.

    Details: docs/conventions.md#fixed-length.

    Args:
        length: tokens; take the sampler's maximal response length. It only scales the learning rate.
    """
    return torch.where(mask.bool(), per_token, torch.zeros_like(per_token)).sum() / (max(len(per_token), 1) * length)
