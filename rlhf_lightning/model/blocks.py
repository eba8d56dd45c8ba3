"""The blocks of a transformer, and the stacks that they are in."""

from __future__ import annotations

from typing import Any

from torch import nn

from rlhf_lightning.errors import ConfigError


def stacks(model: Any) -> list[nn.Module]:
    """Encoder and decoder of an encoder-decoder; else the model."""
    return [model.get_encoder(), model.get_decoder()] if getattr(model.config, "is_encoder_decoder", False) else [model]


def blocks_of(stack: nn.Module, setting: str, count: int) -> tuple[str, nn.ModuleList]:
    """Name and list of a stack's blocks, which hold more weights than any other list.

    Args:
        setting: with `count` blocks, for messages.

    Raises:
        ConfigError: there is no list of blocks, or it has fewer than `count`.
    """
    lists = {name: module for name, module in stack.named_modules() if isinstance(module, nn.ModuleList)}
    name, kind = (
        max(lists, key=lambda name: sum(parameter.numel() for parameter in lists[name].parameters()), default=""),
        type(stack).__name__,
    )
    if not name:
        raise ConfigError(f"{setting}={count} finds no blocks in {kind}: choose another option of {setting.split('.')[0]}")
    if count > len(lists[name]):
        raise ConfigError(f"{setting}={count}: {kind} has {len(lists[name])} blocks; ask for fewer")
    return name, lists[name]
