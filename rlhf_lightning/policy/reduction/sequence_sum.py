from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.registry import register
from rlhf_lightning.tensors import masked_mean


@register("policy_reduction", "sequence_sum")
def sequence_sum(per_token: Tensor, mask: Tensor) -> Tensor:
    """Mean over responses of each response's token sum: the policy gradient as derived.

    Of [B, T]; its scale grows with length. A response without tokens isn't counted, as in verl. 0 with no gradient where nothing counts.
    """
    sums = torch.where(mask.bool(), per_token, torch.zeros_like(per_token)).sum(dim=1)
    return masked_mean(sums, mask.bool().any(dim=1))
