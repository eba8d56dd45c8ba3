"""Train the last blocks of the trunk."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import nn

from rlhf_lightning.model.trunk import blocks_of, stacks
from rlhf_lightning.registry import register


@register("reward_tuning", "last_layers")
def last_layers(trunk: nn.Module, *, layers: PositiveInt = 2) -> None:
    """Train the last blocks and the norm after them, with the head; the rest is frozen.

    Of an encoder-decoder the decoder's, whose vectors the head reads; the encoder is frozen.

    Args:
        layers: number of blocks.

    Raises:
        ConfigError: more blocks than the trunk has, or no list of blocks is found in it.
    """
    trunk.requires_grad_(False)
    stack = stacks(trunk)[-1]
    prefix, blocks = blocks_of(stack, "reward_tuning.layers", layers)
    blocks[-layers:].requires_grad_(True)
    for name, module in stack.named_modules():
        if "norm" in type(module).__name__.lower() and not name.startswith(f"{prefix}.") and "embed" not in name:
            module.requires_grad_(True)
