"""Pooling and head on the trunk: their constructor arguments and their inputs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor, nn

from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.registry import components, option
from rlhf_lightning.reward.scored_batch import ScoredBatch

Pooling = Callable[[Tensor, Tensor], Tensor]
"""Function from vectors [U, L, D] and a mask [U, L] of tokens to [U, D]."""


def head_arguments(name: str, width: int, aspects: Sequence[str | None]) -> tuple[Any, ...]:
    """Constructor arguments of a head: the width, and `Judgements.aspects` if it needs "aspects"."""
    return (width, aspects) if "aspects" in option("reward_head", name).needs else (width,)


def pooling_arguments(name: str, width: int) -> tuple[int, ...]:
    """Constructor arguments of a pooling: the width for a class, none for a function."""
    return (width,) if inspect.isclass(option("reward_pooling", name).target) else ()


def apply_head(pooling: Pooling, head: nn.Module, hidden: Tensor, mask: Tensor, tokens: PackedTokens) -> Tensor | ScoredBatch:
    """The head's output for U texts, from the vectors of their tokens.

    A head gets the pooled vectors; one that needs "tokens" gets the tokens' vectors, their mask and the response's. A pooling that needs
    "response" gets the response's mask in place of the text's.

    Args:
        hidden: [U, L, D], right-padded. mask: [U, L].
    """
    if "tokens" in needs_of(head):
        output: Tensor | ScoredBatch = head(hidden, mask, response_mask(mask, tokens))
    else:
        output = head(pool(pooling, hidden, mask, tokens))
    return output


def pool(pooling: Pooling, hidden: Tensor, mask: Tensor, tokens: PackedTokens) -> Tensor:
    """phi(x, y), [U, D]."""
    return pooling(hidden, response_mask(mask, tokens) if "response" in needs_of(pooling) else mask)


def response_mask(mask: Tensor, tokens: PackedTokens) -> Tensor:
    """[U, L] mask of the responses, end-of-text included; of all tokens if their starts are unknown."""
    if tokens.response_start is None:
        return mask
    starts = tokens.response_start[:, None]
    return mask.cumsum(1).gt(starts).to(mask.dtype) * mask


def needs_of(part: Any) -> frozenset[str]:
    """The registered needs of a pooling or head instance; empty if it isn't registered."""
    target: Any = part.func if isinstance(part, functools.partial) else type(part) if isinstance(part, nn.Module) else part
    return _needs(target)


@functools.cache
def _needs(target: Hashable) -> frozenset[str]:
    return next((component.needs for component in components() if component.target is target), frozenset())
