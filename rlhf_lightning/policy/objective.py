"""The policy's objective per token: loss, importance weights of a correction, KL penalty."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from torch import Tensor

from rlhf_lightning.flow import Experience

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
