"""Probability ratio, clipped surrogate and metrics of the policy losses.

Shapes: B sequences, T response tokens. Logarithms are natural, KL is in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.tensors import masked_mean

LIMIT = 20.0
"""Bound of log-ratios, without gradient beyond it (verl, OpenRLHF). Otherwise exp overflows float32 at 88, and the clip's discarded
branch sends 0 * inf = NaN back."""
FLOOR = -1000.0
"""Lower bound of log-probabilities, without gradient below it (-inf: the token is impossible now)."""


def within_mask(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities [B, T] clamped at FLOOR; 0 without gradient outside the mask."""
    return torch.where(mask.bool(), log_probs.clamp(min=FLOOR), torch.zeros_like(log_probs))


def log_ratio_of(experience: Experience, log_probs: Tensor) -> Tensor:
    """Log-ratio [B, T] of new to old probability, not clamped; 0 outside the mask."""
    mask = experience.response_mask
    return within_mask(log_probs, mask) - within_mask(experience.old_log_probs, mask)


def ratio_of(log_ratio: Tensor) -> Tensor:
    """exp of the log-ratio clamped to +-LIMIT; the gradient is 0 beyond."""
    return log_ratio.clamp(-LIMIT, LIMIT).exp()


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clipped surrogate per token, and the tokens where it is clipped (Schulman et al., 2017, eq. 7).

    max(-ratio A, -clip(ratio, 1 - low, 1 + high) A).
    """
    plain = -ratio * advantages
    clipped = -ratio.clamp(1 - low, 1 + high) * advantages
    return torch.maximum(plain, clipped), clipped > plain


def ratio_metrics(experience: Experience, log_ratio: Tensor, ratio: Tensor, clipped: Tensor) -> dict[str, Tensor]:
    """Clipped fraction, approximate KL to the old policy, and mean and variance of the ratio.

    Means over the response tokens. The KL is 0.5 * mean(log ratio ** 2), TRL's, of the unclamped log-ratio. The variance is about 1, the
    ratio's mean under the behaviour policy: micro-batches add up.
    """
    mask, log_ratio, ratio = experience.response_mask, log_ratio.detach(), ratio.detach()
    return {
        "policy/clipfrac_avg": masked_mean(clipped.to(ratio.dtype), mask),
        "policy/approxkl_avg": masked_mean(log_ratio**2, mask) / 2,
        "val/ratio": masked_mean(ratio, mask),
        "val/ratio_var": masked_mean((ratio - 1) ** 2, mask),
    }
