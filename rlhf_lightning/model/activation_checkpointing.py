"""Activation checkpointing: blocks run again in the backward pass (Chen et al. 2016)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rlhf_lightning.errors import ConfigError

UNCACHED = {"past_key_values": None, "past_key_value": None, "layer_past": None, "cache": None, "use_cache": False}
"""Arguments of a block without a cache, which a second forward pass would write to again."""


def checkpoint_activations(model: Any, setting: str = "backbone.activation_checkpointing") -> None:
    """Let a model's blocks recompute their activations in the backward pass, in place.

    Gradients are the same: dropout draws the same numbers again. Unlike transformers' own switch it acts in eval mode too, in which PPO
    and preference optimisation train; without gradients, as in sampling, nothing changes.

    Args:
        setting: for messages.

    Raises:
        ConfigError: transformers has no checkpointing for this architecture.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ConfigError(f"{setting}=true: transformers has no activation checkpointing for {type(model).__name__}: leave it out")
    inner = {id(part) for block in blocks for part in block.modules() if part is not block}
    for block in blocks:
        if id(block) not in inner and not is_checkpointed_block(block):
            block_class: Any = type(block)
            block.__class__ = _checkpointed_class(block_class)


def has_checkpointing(model: nn.Module) -> bool:
    """True if any block recomputes its activations."""
    return any(is_checkpointed_block(module) for module in model.modules())


def is_checkpointed_block(module: nn.Module) -> bool:
    return bool(getattr(type(module), "recomputes_activations", False))


@functools.cache
def _checkpointed_class(block_class: Callable[..., Any]) -> type[nn.Module]:
    """A block's class with a forward that is recomputed.

    It keeps its name, by which FSDP2 finds blocks. A class instead of a wrapped instance: copies of a model stay independent, and hooks
    (FSDP2's) run outside of the recomputation.
    """
    base: Any = block_class
    forward = base.forward

    @functools.wraps(forward)
    def forward_and_recompute(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(self, *args, **kwargs)
        uncached: dict[str, Any] = {name: UNCACHED.get(name, value) for name, value in kwargs.items()}
        return checkpoint(forward, self, *args, use_reentrant=False, preserve_rng_state=self.training, **uncached)

    body = {"forward": forward_and_recompute, "recomputes_activations": True, "__module__": __name__, "__doc__": base.__doc__}
    return type(base.__name__, (base,), body)
