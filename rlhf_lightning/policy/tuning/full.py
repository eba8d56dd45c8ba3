"""The whole policy is trained."""

from __future__ import annotations

from torch import nn

from rlhf_lightning.registry import register


@register("policy_tuning", "full")
def full(model: nn.Module) -> None:
    """Every weight of the policy is trained; the frozen reference is a second copy of the model."""
    model.requires_grad_(True)
