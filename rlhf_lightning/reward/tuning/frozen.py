"""The head alone is trained."""

from __future__ import annotations

from torch import nn

from rlhf_lightning.registry import register


@register("reward_tuning", "frozen")
def frozen(trunk: nn.Module) -> None:
    """The head alone is trained: with reward_head=linear the linear regression r = w·phi(x, y) on the frozen trunk's phi."""
    trunk.eval().requires_grad_(False)
