"""The head alone is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_lightning.registry import register

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register("reward_tuning", "frozen")
def frozen(trunk: PreTrainedModel) -> None:
    """The head alone is trained: with reward_head=linear the linear regression r = w·phi(x, y) on the frozen trunk's phi."""
    trunk.eval().requires_grad_(False)
