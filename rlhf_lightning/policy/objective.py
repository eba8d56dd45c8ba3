"""The policy's whole objective per token: its loss, corrected for what the sampler saw, and the penalties beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from torch import Tensor

from rlhf_lightning.flow import Experience

PerToken: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""Values [B, T], and scalar metrics that are means over the response tokens."""
Loss: TypeAlias = Callable[[Experience, Tensor], PerToken]
Correction: TypeAlias = Callable[[Experience], PerToken]


def objective(loss: Loss, correction: Correction | None = None, penalties: Sequence[Loss] = ()) -> Loss:
    """One loss of several parts, to be called as the loss alone: weights * loss + penalties, per token.

    A correction (policy_correction) weighs the loss and not the penalties, as in TRL. Metrics of all parts are joined.

    Returns:
        The loss itself where there is nothing to join.
    """
    return partial(_joined, loss, correction, tuple(penalties)) if correction or penalties else loss


def _joined(loss: Loss, correction: Correction | None, penalties: Sequence[Loss], experience: Experience, log_probs: Tensor) -> PerToken:
    per_token, metrics = loss(experience, log_probs)
    if correction is not None:
        weights, seen = correction(experience)
        per_token, metrics = per_token * weights, metrics | seen
    for penalty in penalties:
        added, seen = penalty(experience, log_probs)
        per_token, metrics = per_token + added, metrics | seen
    return per_token, metrics
