"""How far the numbers of a rollout reach, and a refusal of those that float32 can't compute with.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import ScoredRollout

LARGEST = 1e15
"""Squares of larger numbers, summed over the tokens of a batch, come near float32's 3.4e38: a variance would be infinite, and what is
divided by it a silent 0."""
LEARNED_FROM = ("rewards", "values", "advantages", "returns")


def value_ranges(record: ScoredRollout, log_probs: Tensor | None = None) -> dict[str, list[float]]:
    """[smallest, largest] of scores, rewards, advantages, returns and values, and of the log-ratios of the old policy to the reference and,
    where `log_probs` [B, T] are given, of the present policy to the old one. Of response tokens alone; a NaN among them is both."""
    inside = record.response_mask.bool()
    found = {name: _inside(record, name, inside) for name in LEARNED_FROM}
    found["scores"] = record.scores
    found["log_ratio_to_reference"] = (record.old_log_probs - record.ref_log_probs)[inside]
    if log_probs is not None:
        found["log_ratio_to_old"] = (log_probs - record.old_log_probs)[inside]
    return {name: [value.min().item(), value.max().item()] for name, value in found.items() if value is not None and value.numel()}


def check_value_ranges(record: ScoredRollout, update: int, note: Callable[[], str] = str) -> None:
    """Hold what an update learns from to numbers that can be computed with.

    Args:
        note: makes a clause of what else may be the reason.

    Raises:
        UserError: a reward, value, advantage or return isn't finite, or is beyond LARGEST; the message names the response and its score.
    """
    inside = record.response_mask.bool()
    for name in LEARNED_FROM:
        values = getattr(record, name, None)
        if values is None:
            continue
        wild = (inside & ~(values.abs() <= LARGEST)).nonzero()
        if len(wild):
            row, place = wild[0].tolist()
            raise UserError(
                f"update {update}: {name} of {len(wild)} tokens aren't finite or are beyond {LARGEST:g}, the first {values[row, place]:g} "
                f"in the response {record.responses[row][:80]!r} with the score {record.scores[row]:g} and the log-probabilities "
                f"{record.old_log_probs[row, place]:g} (policy) and {record.ref_log_probs[row, place]:g} (reference){note()}; "
                "look at what rollout_scorer returns, clip it (rollout_shaping=[clip_score,...]), or lower ppo.learning_rate"
            )


def _inside(record: ScoredRollout, name: str, inside: Tensor) -> Tensor | None:
    values = getattr(record, name, None)
    return values[inside] if isinstance(values, torch.Tensor) else None
