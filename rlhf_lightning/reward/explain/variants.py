"""Variants of a tokenised text, with tokens removed or replaced, scored in batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.model.packing import PackedTokens

BUDGET = 2048
"""Tokens per batch."""


def token_count(tokens: PackedTokens) -> int:
    """Number of tokens that the model reads, with an encoder's context."""
    return len(tokens.ids) + (0 if tokens.context is None else token_count(tokens.context))


def streams(tokens: PackedTokens) -> list[PackedTokens]:
    """The token rows in the order of counting: an encoder's context, then the text."""
    return [tokens] if tokens.context is None else [*streams(tokens.context), tokens]


def concat(texts: Sequence[PackedTokens]) -> PackedTokens:
    """Join texts with the same optional fields to a batch."""

    def column(name: str) -> Tensor | None:
        values = [getattr(text, name) for text in texts]
        return None if values[0] is None else torch.cat(values)

    contexts = [text.context for text in texts if text.context is not None]
    names = (field.name for field in dataclasses.fields(PackedTokens) if field.name != "context")
    columns: dict[str, Any] = {name: column(name) for name in names}
    return PackedTokens(**columns, context=concat(contexts) if contexts else None)


def without(tokens: PackedTokens, positions: Sequence[int], filler: int | None = None) -> PackedTokens:
    """One text without the tokens at these positions, or with the token `filler` in their place.

    A stream that would become empty keeps its length, with filler.
    """
    offset = token_count(tokens) - len(tokens.ids)
    mask = torch.ones(len(tokens.ids), dtype=torch.bool)
    mask[[position - offset for position in positions if position >= offset]] = False
    context = None if tokens.context is None else without(tokens.context, [p for p in positions if p < offset], filler)
    if filler is not None or not mask.any():
        return dataclasses.replace(tokens, ids=tokens.ids.where(mask, filler or 0), context=context)
    start = tokens.response_start
    return dataclasses.replace(
        tokens,
        ids=tokens.ids[mask],
        lengths=mask.sum()[None],
        types=None if tokens.types is None else tokens.types[mask],
        response_start=None if start is None else mask[: int(start)].sum()[None],
        context=context,
    )


@torch.no_grad()
def score_batches(model: Callable[[PackedTokens], Tensor], texts: Sequence[PackedTokens], device: torch.device) -> Tensor:
    """Scores [U] of single texts on the CPU, in batches of about BUDGET tokens."""
    scores = [model(concat(part).to(device)).float().cpu() for part in _batches(texts)]
    return torch.cat(scores) if scores else torch.zeros(0)


def _batches(texts: Sequence[PackedTokens]) -> Iterator[list[PackedTokens]]:
    part, tokens = list[PackedTokens](), 0
    for text in texts:
        if part and tokens + token_count(text) > BUDGET:
            yield part
            part, tokens = [], 0
        part.append(text)
        tokens += token_count(text)
    if part:
        yield part
