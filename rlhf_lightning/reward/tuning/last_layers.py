"""Train the last blocks of the trunk."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt
from torch import nn

from rlhf_lightning.errors import ConfigError
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
    model: Any = trunk
    stack: nn.Module = model.get_decoder() if getattr(model.config, "is_encoder_decoder", False) else trunk
    lists = {name: module for name, module in stack.named_modules() if isinstance(module, nn.ModuleList)}
    if not lists:
        raise ConfigError(f"reward_tuning=last_layers finds no blocks in {type(trunk).__name__}: choose reward_tuning=full, frozen or lora")
    # The blocks hold more weights than any other list.
    prefix = max(lists, key=lambda name: sum(parameter.numel() for parameter in lists[name].parameters()))
    blocks = lists[prefix]
    if layers > len(blocks):
        raise ConfigError(f"reward_tuning.layers={layers}: {type(trunk).__name__} has {len(blocks)} blocks; ask for fewer, or full")
    blocks[-layers:].requires_grad_(True)
    for name, module in stack.named_modules():
        if "norm" in type(module).__name__.lower() and not name.startswith(f"{prefix}.") and "embed" not in name:
            module.requires_grad_(True)
