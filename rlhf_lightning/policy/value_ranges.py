"""Value ranges of a rollout, and a check that float32 can compute with them.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import ScoredRollout

S = TypeVar("S", bound=ScoredRollout)
MAX_ABS = 1e15
"""Squares of larger numbers, summed over the tokens of a batch, come near float32's 3.4e38: a variance would be infinite, and a number
divided by it a silent 0."""
CHECKED = ("rewards", "values", "advantages", "returns")


def with_checked_ranges(method: Callable[[Any, ScoredRollout], S]) -> Callable[[Any, ScoredRollout], S]:
    """Decorate a method of ExperienceMaker: check the value ranges of the record that it returns."""

    @functools.wraps(method)
    def checking(maker: Any, scored: ScoredRollout) -> S:
        record = method(maker, scored)
        check_value_ranges(record, maker.update, maker.describe_weights)
        return record

    return checking


def value_ranges(record: ScoredRollout, log_probs: Tensor | None = None) -> dict[str, list[float]]:
    """[min, max] over the response tokens of scores, rewards, values, advantages, returns and log-ratios.

    The log-ratios are those of the old policy to the reference and, given `log_probs` [B, T], of the new policy to the old one. A NaN is
    both minimum and maximum.
    """
    inside = record.response_mask.bool()
    values = {name: value[inside] for name in CHECKED if isinstance(value := getattr(record, name, None), Tensor)}
    values["scores"] = record.scores
    values["log_ratio_to_reference"] = (record.old_log_probs - record.ref_log_probs)[inside]
    if log_probs is not None:
        values["log_ratio_to_old"] = (log_probs - record.old_log_probs)[inside]
    return {name: [value.min().item(), value.max().item()] for name, value in values.items() if value.numel()}


def check_value_ranges(record: ScoredRollout, update: int, describe_weights: Callable[[], str] = str) -> None:
    """Check that rewards, values, advantages and returns are finite and at most MAX_ABS.

    Args:
        describe_weights: makes a clause on another possible cause.

    Raises:
        UserError: naming the response and its score.
    """
    inside = record.response_mask.bool()
    for name in CHECKED:
        values = getattr(record, name, None)
        if values is None:
            continue
        out_of_range = (inside & ~(values.abs() <= MAX_ABS)).nonzero()
        if len(out_of_range):
            row, token = out_of_range[0].tolist()
            raise UserError(
                f"update {update}: {name} of {len(out_of_range)} tokens aren't finite or are beyond {MAX_ABS:g}, the first "
                f"{values[row, token]:g} in the response {record.responses[row][:80]!r} with the score {record.scores[row]:g} and the "
                f"log-probabilities {record.old_log_probs[row, token]:g} (policy) and {record.ref_log_probs[row, token]:g} "
                f"(reference){describe_weights()}; look at the scores of rollout_scorer, clip them "
                "(rollout_shaping=[clip_score,...]), or lower ppo.learning_rate"
            )
