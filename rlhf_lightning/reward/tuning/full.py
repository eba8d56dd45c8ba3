"""The whole trunk is trained."""

from __future__ import annotations

from torch import nn

from rlhf_lightning.registry import register


@register("reward_tuning", "full")
def full(trunk: nn.Module) -> None:
    """Every weight of the trunk is trained, with the head."""
    trunk.requires_grad_(True)
