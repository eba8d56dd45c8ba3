"""Scores of spans of a response, and the tokens that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompts, Rollout

Span: TypeAlias = tuple[int, int, float]
"""Start and end in characters of the response, and the value of that part."""
Decode: TypeAlias = Callable[[Tensor, Tensor, Prompts | None], list[str]]
"""`LanguageModel.decode`: ids [B, T], mask [B, T] and prompts to texts."""


def read_spans(output: Any, responses: Sequence[str], scorer: str) -> list[list[Span] | None] | None:
    """Check a list of spans for each response; None for an output of another kind.

    Raises:
        UserError: a span that is no (start, end, value) within its response.
    """
    rows_of_spans = isinstance(output, list | tuple) and all(row is None or isinstance(row, list | tuple) for row in output)
    if not rows_of_spans or len(output) != len(responses) or all(row is None for row in output):
        return None
    rows: list[list[Span] | None] = []
    for row, response in zip(output, responses, strict=True):
        if not all(_is_span(span, len(response)) for span in row or ()):
            raise UserError(
                f"scorer {scorer} returned {row!r:.120} for the response {response[:80]!r} of {len(response)} characters; a scorer of "
                "spans returns for each response a list of (start, end, value), or None"
            )
        rows.append(None if row is None else [(int(start), int(end), float(value)) for start, end, value in row])
    return rows


def _is_span(span: Any, length: int) -> bool:
    if not isinstance(span, list | tuple) or len(span) != 3 or not all(isinstance(number, Real) for number in span):
        return False
    return bool(0 <= span[0] < span[1] <= length)


def place_spans(spans: Sequence[Sequence[Span] | None], rollout: Rollout, decode: Decode) -> Tensor:
    """Put the value of each span on the token with its last character, [B, T].

    As in fine-grained RLHF (Wu et al. 2023). A row of NaN for a response without a score.
    """
    ends = token_ends(rollout, decode)
    rewards = torch.zeros(ends.shape, dtype=torch.float32)
    for i, row in enumerate(spans):
        last = max(int(rollout.response_mask[i].sum()) - 1, 0)
        if row is None:
            rewards[i] = torch.nan
        for _, end, value in row or ():
            rewards[i, min(int(torch.searchsorted(ends[i], end)), last)] += value
    return rewards.to(rollout.response_mask.device)


def token_ends(rollout: Rollout, decode: Decode) -> Tensor:
    """Lengths [B, T] of each response's text up to each token, in characters, never falling along a row."""
    mask = rollout.response_mask
    positions = torch.arange(mask.shape[1], device=mask.device)
    prefixes = [decode(rollout.response_ids, mask * (positions <= t), rollout) for t in range(mask.shape[1])]
    return torch.tensor([[len(text) for text in texts] for texts in prefixes]).T.contiguous().cummax(1).values
