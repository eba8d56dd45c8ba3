"""Low-rank adapters on the policy's frozen weights."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat, PositiveInt
from torch import nn

from rlhf_lightning.model.adapters import add_adapters
from rlhf_lightning.model.output_layer import trunk_of
from rlhf_lightning.registry import register


@register("policy_tuning", "lora", needs=["pretrained"])
def lora(model: nn.Module, *, rank: PositiveInt = 16, alpha: PositiveFloat = 32.0, targets: tuple[str, ...] = ("all-linear",)) -> None:
    """Train only low-rank adapters; the reference is the same model without them.

    W + alpha/rank · B·A. The output layer gets none: it is often tied to the embedding. They start as no change (B = 0; Hu et al. 2021)
    and are merged into the weights in the saved folder. There is no dropout, unlike in the paper: the trained policy must be the one that
    generated the responses.

    Args:
        model: a transformers model; "pretrained": a warm-up from random weights trains all of them.
        rank: inner width of the adapters' two matrices.
        alpha: the adapters' product is scaled by alpha/rank.
        targets: names of the trunk's linear layers that get one (["q_proj", "v_proj"]), or ["all-linear"]: all of them, and fused experts.

    Raises:
        ConfigError: peft isn't installed, or no linear layer has such a name.
    """
    model.requires_grad_(False)
    language_model: Any = model
    add_adapters(trunk_of(language_model), "policy_tuning", rank=rank, alpha=alpha, dropout=0.0, targets=targets)
