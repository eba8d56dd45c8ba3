"""Rotary positions that depend on the longest text of a forward pass: longrope and dynamic scaling."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from torch import nn


class RopeLimit(NamedTuple):
    """The maximum tokens of a text with the original frequencies.

    Attributes:
        by_length: the frequencies of longer texts depend on their length (dynamic), else they are the same (longrope).
    """

    positions: int
    by_length: bool


_limits: weakref.WeakKeyDictionary[nn.Module, RopeLimit | None] = weakref.WeakKeyDictionary()


def rope_limit(model: nn.Module) -> RopeLimit | None:
    """The limit of a model's rotary positions; None if no frequency depends on a length."""
    if model not in _limits:
        limits = [limit for module in model.modules() for limit in _limits_of(module)]
        by_length = any(limit.by_length for limit in limits)
        _limits[model] = RopeLimit(min(limit.positions for limit in limits), by_length) if limits else None
    return _limits[model]


def reset_rope(model: nn.Module) -> None:
    """Restore original dynamic frequencies; transformers keeps those of the longest text so far."""
    limit = rope_limit(model)
    if limit is None or not limit.by_length:
        return
    for module in model.modules():
        state: Any = module
        for prefix in _prefixes(module):
            if hasattr(module, f"{prefix}original_inv_freq") and hasattr(module, "original_max_seq_len"):
                original = getattr(state, f"{prefix}original_inv_freq").to(getattr(state, f"{prefix}inv_freq").device)
                state.register_buffer(f"{prefix}inv_freq", original, persistent=False)
                setattr(state, f"{prefix}max_seq_len_cached" if prefix else "max_seq_len_cached", state.original_max_seq_len)


def _prefixes(module: nn.Module) -> dict[str, str]:
    """Length-dependent types of scaling by the prefix of a rotary module's buffers."""
    types: Any = getattr(module, "rope_type", None)
    named = {f"{name}_": kind for name, kind in types.items()} if isinstance(types, dict) else {"": types}
    return {prefix: kind for prefix, kind in named.items() if isinstance(kind, str) and ("dynamic" in kind or kind == "longrope")}


def _limits_of(module: nn.Module) -> list[RopeLimit]:
    limits = []
    for prefix, kind in _prefixes(module).items():
        config: Any = getattr(module, "config", None)
        parameters = getattr(config, "rope_parameters", None) or {}
        parameters = parameters.get(prefix.removesuffix("_"), parameters)
        dynamic: Any = getattr(module, "original_max_seq_len", None)
        positions = parameters.get("original_max_position_embeddings") if kind == "longrope" else dynamic
        limits.append(RopeLimit(int(positions or config.max_position_embeddings), "dynamic" in kind))
    return limits
