"""Tensor arithmetic. Pure functions.

Shapes: B rows, T response tokens, V vocabulary. A mask is 1 (or True) where a token counts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean over the masked positions; 0 without any (never NaN).

    Masked-out values may be anything, NaN included: they are replaced, not multiplied.
    """
    mask = mask.to(values.dtype)
    masked = torch.where(mask > 0, values, torch.zeros_like(values))
    if dim is None:
        return masked.sum() / mask.sum().clamp(min=1)
    return masked.sum(dim) / mask.sum(dim).clamp(min=1)


def masked_var(values: Tensor, mask: Tensor, unbiased: bool = True) -> Tensor:
    """Variance over the masked positions, by default with Bessel's correction; 0 below two tokens."""
    mean = masked_mean(values, mask)
    count = mask.to(values.dtype).sum()
    variance = masked_mean((values - mean) ** 2, mask)
    return variance * count / (count - 1).clamp(min=1) if unbiased else variance


def masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """(values - mean) / std over the mask; with shift_mean=False the mean is added back.

    Convention of TRL and verl: unbiased variance, eps inside the square root, positions outside the mask are transformed too.
    torchtune's argument of the same name means the opposite.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_var(values, mask) + eps)
    return whitened if shift_mean else whitened + mean


def log_probs_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax of [..., V] logits at the tokens [...], in float32 at least. Doesn't change the logits."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)


def entropy_of(logits: Tensor) -> Tensor:
    """Entropy in nats of the full distribution of [..., V] logits, not of the sampled token."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    # entr(0) is 0: a token ruled out by a logit of -inf adds nothing, where 0 * -inf would be NaN.
    entropy: Tensor = torch.special.entr(logits.softmax(-1)).sum(-1)
    return entropy


def kl_estimate(log_probs: Tensor, ref_log_probs: Tensor, estimator: str = "k1") -> Tensor:
    """Per-token estimate of KL(policy, reference) from tokens sampled from the policy.

    Source: J. Schulman, "Approximating KL Divergence", 2020.

    k1: log ratio, unbiased. k2: half its square, biased, low variance. k3: exp(-r) - 1 + r, unbiased and never negative.
    No clamping: an extreme ratio stays visible.
    """
    ratio = log_probs - ref_log_probs
    if estimator == "k1":
        return ratio
    if estimator == "k2":
        return ratio**2 / 2
    if estimator == "k3":
        return torch.expm1(-ratio) + ratio
    raise ValueError(f"KL estimator {estimator!r} is not one of k1, k2, k3")


def score_on_last_token(scores: Tensor, response_mask: Tensor) -> Tensor:
    """Put scores [B] on the last response token of each row, [B, T]; 0 in a row without any.

    Details: docs/conventions.md#where-the-score-is-paid.
    """
    inside = response_mask.bool()
    last = inside & (inside.flip(1).cumsum(1).flip(1) == 1)
    return torch.where(last, scores[:, None], torch.zeros_like(scores[:, None]))
