"""Texts like one text, as tokens: some taken out, some replaced, many in one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.model.packing import PackedTokens

BUDGET = 2048
"""Tokens that are run at a time."""


def size(tokens: PackedTokens) -> int:
    """How many tokens the model reads, those of an encoder's context counted."""
    return len(tokens.ids) + (0 if tokens.context is None else size(tokens.context))


def streams(tokens: PackedTokens) -> list[PackedTokens]:
    """What the model reads, in the order in which tokens are counted here: an encoder's context first, then the text's own row."""
    return [tokens] if tokens.context is None else [*streams(tokens.context), tokens]


def joined(texts: Sequence[PackedTokens]) -> PackedTokens:
    """Several as one batch. All have the same optional fields."""

    def column(name: str) -> Tensor | None:
        values = [getattr(text, name) for text in texts]
        return None if values[0] is None else torch.cat(values)

    contexts = [text.context for text in texts if text.context is not None]
    names = (field.name for field in dataclasses.fields(PackedTokens) if field.name != "context")
    columns: dict[str, Any] = {name: column(name) for name in names}
    return PackedTokens(**columns, context=joined(contexts) if contexts else None)


def without(tokens: PackedTokens, places: Sequence[int], filler: int | None = None) -> PackedTokens:
    """One text without the tokens at these places, or with the token `filler` instead of each.

    A stream that would be left without any token keeps its length, filled: no model reads nothing.
    """
    own = size(tokens) - len(tokens.ids)
    kept = torch.ones(len(tokens.ids), dtype=torch.bool)
    kept[[place - own for place in places if place >= own]] = False
    context = None if tokens.context is None else without(tokens.context, [place for place in places if place < own], filler)
    if filler is not None or not kept.any():
        return dataclasses.replace(tokens, ids=tokens.ids.where(kept, filler or 0), context=context)
    start = tokens.response_start
    return dataclasses.replace(
        tokens,
        ids=tokens.ids[kept],
        lengths=kept.sum()[None],
        types=None if tokens.types is None else tokens.types[kept],
        response_start=None if start is None else kept[: int(start)].sum()[None],
        context=context,
    )


@torch.no_grad()
def scored(model: Callable[[PackedTokens], Tensor], texts: Sequence[PackedTokens], device: torch.device) -> Tensor:
    """Scores [U] of single texts, some BUDGET of tokens at a time, on the CPU."""
    found = [model(joined(part).to(device)).float().cpu() for part in _parts(texts)]
    return torch.cat(found) if found else torch.zeros(0)


def _parts(texts: Sequence[PackedTokens]) -> Iterator[list[PackedTokens]]:
    part, tokens = list[PackedTokens](), 0
    for text in texts:
        if part and tokens + size(text) > BUDGET:
            yield part
            part, tokens = [], 0
        part.append(text)
        tokens += size(text)
    if part:
        yield part
