"""The policy's objective per token: loss, weights of tokens and of a correction, KL penalty.

A policy loss takes the experience (advantages, old_log_probs and response_mask, [B, T]) and log_probs [B, T] of the policy being
trained. It returns the loss per token [B, T], before reduction, and scalar metrics.

Shapes: B sequences, T response tokens. Logarithms are natural, KL is in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from rlhf_lightning.flow import Experience, ScoredRollout
from rlhf_lightning.tensors import masked_mean

PerToken: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""Values [B, T], and scalar metrics: means over the response tokens."""
Loss: TypeAlias = Callable[[Experience, Tensor], PerToken]
Penalty: TypeAlias = Callable[[Experience, Tensor], PerToken | None]
Correction: TypeAlias = Callable[[Experience], PerToken]


def objective(loss: Loss, correction: Correction | None = None, penalty: Penalty | None = None) -> Loss:
    """Combine loss, correction and penalty into one loss: weights * loss + penalty, per token.

    As in TRL, the correction (policy_correction) weights the loss but not the penalty. Metrics are merged.
    """
    return partial(_objective, loss, correction, penalty) if correction or penalty else loss


def _objective(loss: Loss, correction: Correction | None, penalty: Penalty | None, experience: Experience, log_probs: Tensor) -> PerToken:
    per_token, metrics = loss(experience, log_probs)
    if correction is not None:
        weights, correction_metrics = correction(experience)
        per_token, metrics = per_token * weights, metrics | correction_metrics
    penalised = None if penalty is None else penalty(experience, log_probs)
    if penalised is not None:
        per_token, metrics = per_token + penalised[0], metrics | penalised[1]
    return per_token, metrics


def token_weights(reduction: Callable[[Tensor, Tensor], Tensor], mask: Tensor) -> Tensor:
    """Weight [B, T] of each token in a reduction: its gradient, because a reduction is linear."""
    with torch.enable_grad():
        losses = torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        reduced = reduction(losses, mask)
        return torch.autograd.grad(reduced, losses)[0] if reduced.requires_grad else torch.zeros_like(losses)


def weighted_sum(per_token: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over [B, T]; values with weight 0, NaN included, are ignored."""
    return (torch.where(weights != 0, per_token, torch.zeros_like(per_token)) * weights).sum()


class KLPenalty:
    """No KL penalty; an option of policy_kl overrides the method of its placement."""

    def shape_rewards(self, scored: ScoredRollout) -> ScoredRollout:
        """Subtract the penalty from the rewards [B, T]."""
        return scored

    def per_token_loss(self, experience: Experience, log_probs: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Penalty [B, T] to add to the policy loss, and scalar metrics; None if there is none.

        Args:
            log_probs: [B, T] of the policy being trained.
        """
        return None


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
