from __future__ import annotations

from torch import Tensor

from rlhf_lightning.registry import register
from rlhf_lightning.tensors import masked_mean


@register("policy_reduction", "sequence_mean")
def sequence_mean(per_token: Tensor, mask: Tensor) -> Tensor:
    """The mean over responses of each response's token mean: every response weighs the same.

    Of [B, T]; GRPO's (Shao et al., 2024, eq. 3). A response without tokens isn't counted, as in verl; TRL counts it as 0. 0 with
    no gradient where nothing counts.

    Details: docs/conventions.md#a-response-without-tokens.
    """
    return masked_mean(masked_mean(per_token, mask, dim=1), mask.bool().any(dim=1))
