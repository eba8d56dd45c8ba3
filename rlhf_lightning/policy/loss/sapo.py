from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import log_ratio_of, ratio_metrics, ratio_of
from rlhf_lightning.registry import register


@register("policy_loss", "sapo")
def sapo(
    experience: Experience, log_probs: Tensor, *, temperature: PositiveFloat = 1.0, temperature_negative: PositiveFloat = 1.05
) -> tuple[Tensor, dict[str, Tensor]]:
    """SAPO: a soft gate on the ratio instead of a clip, closing faster where the advantage is negative.

    -A 4 / tau sigmoid(tau (ratio - 1)) per token, tau by the sign of A (Gao et al., 2025, eq. 5 and 6): the slope is the policy
    gradient's at ratio 1 and fades on both sides. The value at ratio 1 is -2 A / tau, not -A, as in the paper and TRL. Nothing is
    clipped: policy/clipfrac_avg is the share of tokens whose slope has fallen below half.

    Details: docs/conventions.md#sapo.

    Args:
        temperature: tau where the advantage is positive.
        temperature_negative: tau elsewhere; a little larger, for pushing one token down lifts all the others.

    Returns:
        The loss per token [B, T], before reduction (sequence_mean in the paper), and scalar metrics.
    """
    log_ratio = log_ratio_of(experience, log_probs)
    ratio = ratio_of(log_ratio)
    advantages = experience.advantages
    tau = torch.where(advantages > 0, temperature, temperature_negative).to(ratio.dtype)
    gate = torch.sigmoid(tau * (ratio - 1))
    slope = 4 * gate * (1 - gate)
    return -advantages * 4 / tau * gate, ratio_metrics(experience, log_ratio, ratio, slope < 0.5)
