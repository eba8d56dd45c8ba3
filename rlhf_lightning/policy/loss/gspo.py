from __future__ import annotations

from pydantic import PositiveFloat
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.objective import clipped_surrogate, log_ratio_of, ratio_metrics, ratio_of
from rlhf_lightning.registry import register


@register("policy_loss", "gspo")
def gspo(
    experience: Experience, log_probs: Tensor, *, clip_ratio: PositiveFloat = 3e-4, clip_ratio_high: PositiveFloat = 4e-4
) -> tuple[Tensor, dict[str, Tensor]]:
    """GSPO: the clipped surrogate with one ratio per sequence, the geometric mean of its tokens'.

    GSPO-token of Zheng et al. (2025, eq. 13 and 14), as in verl: the value is the sequence's ratio, the gradient of a token
    flows through its own log-probability, so that advantages may differ by token. Where a row has one advantage and the
    reduction is sequence_mean, gradient and value are plain GSPO's (OpenRLHF, TRL). Deviation: the mean log-ratio is held within
    +-20 (verl: at most 10).

    Details: docs/conventions.md#gspo-s-gradient.

    Args:
        clip_ratio, clip_ratio_high: how far the sequence's ratio may fall and rise; two orders smaller than PPO's.

    Returns:
        The loss per token [B, T], before reduction (sequence_mean in the paper), and scalar metrics.
    """
    log_ratio = log_ratio_of(experience, log_probs)
    lengths = experience.response_mask.to(log_ratio.dtype).sum(dim=1, keepdim=True).clamp(min=1)
    mean = (log_ratio.sum(dim=1, keepdim=True) / lengths).detach()
    ratio = ratio_of(mean + log_ratio - log_ratio.detach())
    loss, clipped = clipped_surrogate(ratio, experience.advantages, clip_ratio, clip_ratio_high)
    return loss, ratio_metrics(experience, log_ratio, ratio, clipped)
