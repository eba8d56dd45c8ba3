"""What the policy losses share: the probability ratio, the clipped surrogate and the metrics of an update.

Shapes: B sequences, T response tokens. Logarithms are natural, KL is in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.tensors import masked_mean

LIMIT = 20.0
"""Log-ratios beyond this are held at it and teach nothing (verl, OpenRLHF). Without it exp overflows float32 at 88, and the branch
that the clip discards still sends 0 * inf = NaN back."""
FLOOR = -1000.0
"""A log-probability below this (-inf: the token is impossible now) is held at it and teaches nothing."""


def within_mask(log_probs: Tensor, mask: Tensor) -> Tensor:
    """[B, T] log-probabilities held at FLOOR, and 0 with no gradient outside the mask, whatever stands there."""
    return torch.where(mask.bool(), log_probs.clamp(min=FLOOR), torch.zeros_like(log_probs))


def log_ratio_of(experience: Experience, log_probs: Tensor) -> Tensor:
    """[B, T] log of new over old probability, not held at LIMIT; 0 outside the mask."""
    mask = experience.response_mask
    return within_mask(log_probs, mask) - within_mask(experience.old_log_probs, mask)


def ratio_of(log_ratio: Tensor) -> Tensor:
    """exp of the log-ratio held within +-LIMIT; the gradient is 0 beyond."""
    return log_ratio.clamp(-LIMIT, LIMIT).exp()


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """max(-ratio A, -clip(ratio, 1 - low, 1 + high) A) per token, and where the clip raised it (Schulman et al., 2017, eq. 7)."""
    plain = -ratio * advantages
    clipped = -ratio.clamp(1 - low, 1 + high) * advantages
    return torch.maximum(plain, clipped), clipped > plain


def ratio_metrics(experience: Experience, log_ratio: Tensor, ratio: Tensor, clipped: Tensor) -> dict[str, Tensor]:
    """Scalars over the response tokens: the share clipped, the approximate KL from the old policy, the ratio's mean and variance.

    The KL is 0.5 * mean(log ratio ** 2), TRL's; it is taken of the log-ratio before LIMIT, so that a wild one shows. The variance is about
    1, the ratio's mean under the behaviour policy: a mean over tokens like the others, which parts of a minibatch add up to.
    """
    mask, log_ratio, ratio = experience.response_mask, log_ratio.detach(), ratio.detach()
    return {
        "policy/clipfrac_avg": masked_mean(clipped.to(ratio.dtype), mask),
        "policy/approxkl_avg": masked_mean(log_ratio**2, mask) / 2,
        "val/ratio": masked_mean(ratio, mask),
        "val/ratio_var": masked_mean((ratio - 1) ** 2, mask),
    }
