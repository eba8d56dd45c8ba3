"""Train the upper part of the policy."""

from __future__ import annotations

from pydantic import NonNegativeInt
from torch import nn

from rlhf_lightning.model.trunk import blocks_of, stacks
from rlhf_lightning.registry import register


@register("policy_tuning", "freeze", needs=["pretrained"])
def freeze(model: nn.Module, *, layers: NonNegativeInt = 0, embeddings: bool = True) -> None:
    """Freeze the embeddings and the first blocks; the rest is trained.

    The reference is a second copy of the model. Frozen weights have no gradient and no optimizer state, and the backward pass ends above
    frozen blocks on frozen embeddings.

    Args:
        model: a transformers model; "pretrained": a warm-up from random weights trains all of them.
        layers: number of frozen blocks, from the first; of an encoder-decoder in encoder and decoder.
        embeddings: freeze the tables of tokens and positions, and with them an output layer that shares its weight.

    Raises:
        ConfigError: more blocks than the model has, or no list of blocks in it.
    """
    model.requires_grad_(True)
    for stack in stacks(model):
        name, blocks = blocks_of(stack, "policy_tuning.layers", layers)
        blocks[:layers].requires_grad_(False)
        for path, module in stack.named_modules() if embeddings else ():
            if isinstance(module, nn.Embedding) and not path.startswith(f"{name}."):
                module.requires_grad_(False)
