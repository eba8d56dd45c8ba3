"""The whole trunk is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_lightning.registry import register

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register("reward_tuning", "full")
def full(trunk: PreTrainedModel) -> None:
    """Every weight of the trunk is trained, with the head."""
    trunk.requires_grad_(True)
