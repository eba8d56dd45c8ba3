"""Train the head alone."""

from __future__ import annotations

from torch import nn

from rlhf_lightning.registry import register


@register("reward_tuning", "frozen", needs=["pretrained"])
def frozen(trunk: nn.Module) -> None:
    """Train the head alone: with reward_head=linear, a linear regression on the frozen trunk's phi."""
    trunk.eval().requires_grad_(False)
