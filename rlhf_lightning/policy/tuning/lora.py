"""Low-rank adapters on the policy's frozen weights."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from rlhf_lightning.model.adapters import add_adapters, train_modules
from rlhf_lightning.model.output_layer import trunk_of
from rlhf_lightning.registry import register


@register("policy_tuning", "lora", needs=["pretrained"])
def lora(
    model: nn.Module,
    *,
    rank: PositiveInt = 16,
    alpha: PositiveFloat = 32.0,
    targets: tuple[str, ...] = ("all-linear",),
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    modules_to_save: tuple[str, ...] = (),
    rank_stabilized: bool = False,
    dora: bool = False,
) -> None:
    """Train only low-rank adapters; the reference is the same model without them.

    W + alpha/rank · B·A. The output layer gets none: it is often tied to the embedding. They start as no change (B = 0; Hu et al. 2021)
    and are merged into the weights in the saved folder; its subfolder adapter/ holds them alone, for peft.

    Args:
        model: a transformers model; "pretrained": a warm-up from random weights trains all of them.
        rank: inner width of the adapters' two matrices.
        alpha: the adapters' product is scaled by alpha/rank.
        targets: names of the trunk's linear layers that get one (["q_proj", "v_proj"]), or ["all-linear"]: all of them, and fused experts.
        dropout: probability of dropping an input of an adapter, in SFT alone: PPO trains the policy that generated the responses, and
            preference optimisation compares it with its start, both without dropout.
        modules_to_save: names of modules that are trained in full beside the adapters (["lm_head"], ["embed_tokens"]).
        rank_stabilized: scale by alpha/sqrt(rank) instead (rsLoRA).
        dora: learn magnitudes beside directions (DoRA).

    Raises:
        ConfigError: peft isn't installed, no layer or module has such a name, or it shares its weight with another.
    """
    model.requires_grad_(False)
    language_model: Any = model
    add_adapters(
        trunk_of(language_model), "policy_tuning", rank=rank, alpha=alpha, dropout=dropout, targets=targets,
        rank_stabilized=rank_stabilized, dora=dora,
    )  # fmt: skip
    train_modules(model, "policy_tuning", modules_to_save)
