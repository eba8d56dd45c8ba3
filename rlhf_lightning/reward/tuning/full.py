"""Train the full trunk."""

from __future__ import annotations

from torch import nn

from rlhf_lightning.registry import register


@register("reward_tuning", "full")
def full(trunk: nn.Module) -> None:
    """Train every weight of the trunk, with the head."""
    trunk.requires_grad_(True)
