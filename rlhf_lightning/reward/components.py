"""Pooling and head, what stands on the trunk: made with what they need, and called with what they read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor, nn

from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.registry import components, option
from rlhf_lightning.reward.scored_batch import Scored

Pooling = Callable[[Tensor, Tensor], Tensor]
"""Vectors [U, L, D] and mask [U, L] of the tokens that it reads to [U, D]."""


def head_arguments(name: str, width: int, aspects: Sequence[str | None]) -> tuple[Any, ...]:
    """What the head `name` is made with: the width, and the names of `Judgements.aspects` where it needs "aspects"."""
    return (width, aspects) if "aspects" in option("reward_head", name).needs else (width,)


def pooling_arguments(name: str, width: int) -> tuple[int, ...]:
    """What the pooling `name` is made with: the width for a class, nothing for a function."""
    return (width,) if inspect.isclass(option("reward_pooling", name).target) else ()


def said(pooling: Pooling, head: nn.Module, hidden: Tensor, mask: Tensor, tokens: PackedTokens) -> Tensor | Scored:
    """What the head says about U texts, from the vectors of their tokens.

    A head reads what the pooling makes of the tokens; one that needs "tokens" reads them itself, with their mask and the response's. A
    pooling that needs "response" is given the response's mask for the text's.

    Args:
        hidden: [U, L, D], right-padded. mask: [U, L].
    """
    if "tokens" in needs_of(head):
        found: Tensor | Scored = head(hidden, mask, response_mask(mask, tokens))
    else:
        found = head(pooled(pooling, hidden, mask, tokens))
    return found


def pooled(pooling: Pooling, hidden: Tensor, mask: Tensor, tokens: PackedTokens) -> Tensor:
    """phi(x, y), [U, D]."""
    return pooling(hidden, response_mask(mask, tokens) if "response" in needs_of(pooling) else mask)


def response_mask(mask: Tensor, tokens: PackedTokens) -> Tensor:
    """[U, L] the tokens of the responses, end-of-text included; all tokens where nobody said where responses begin."""
    if tokens.response_start is None:
        return mask
    starts = tokens.response_start[:, None]
    return mask.cumsum(1).gt(starts).to(mask.dtype) * mask


def needs_of(part: Any) -> frozenset[str]:
    """What a pooling or a head that is made was registered to need; nothing for one that isn't registered."""
    target: Any = part.func if isinstance(part, functools.partial) else type(part) if isinstance(part, nn.Module) else part
    return _needs(target)


@functools.cache
def _needs(target: Hashable) -> frozenset[str]:
    return next((component.needs for component in components() if component.target is target), frozenset())
