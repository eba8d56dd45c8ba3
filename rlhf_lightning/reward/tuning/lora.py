"""Train low-rank adapters of the trunk's frozen weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from rlhf_lightning.model.adapters import add_adapters, train_modules
from rlhf_lightning.registry import register


@register("reward_tuning", "lora", needs=["pretrained"])
def lora(
    trunk: nn.Module,
    *,
    rank: PositiveInt = 16,
    alpha: PositiveFloat = 32.0,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    targets: tuple[str, ...] = ("all-linear",),
    modules_to_save: tuple[str, ...] = (),
    rank_stabilized: bool = False,
    dora: bool = False,
) -> None:
    """Train low-rank adapters W + alpha/rank · B·A by peft, with the head (Hu et al. 2021).

    They start as no change (B = 0) and are merged into the weights after the training, so that the saved folder is a plain one; its
    subfolder adapter/ holds them alone, for peft.

    Args:
        rank: inner width of the adapters' two matrices.
        alpha: the adapters' product is scaled by alpha/rank.
        dropout: probability of dropping an input of an adapter; adapters of fused experts have none.
        targets: names of the linear layers that get one (["q_proj", "v_proj"]), or ["all-linear"]: all of them, and fused experts.
        modules_to_save: names of the trunk's modules that are trained in full beside the adapters (["embed_tokens"]).
        rank_stabilized: scale by alpha/sqrt(rank) instead (rsLoRA).
        dora: learn magnitudes beside directions (DoRA).

    Raises:
        ConfigError: peft isn't installed, no layer or module has such a name, or it shares its weight with another.
    """
    add_adapters(
        trunk, "reward_tuning", rank=rank, alpha=alpha, dropout=dropout, targets=targets, rank_stabilized=rank_stabilized, dora=dora
    )
    train_modules(trunk, "reward_tuning", modules_to_save)
