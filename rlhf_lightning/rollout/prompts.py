"""The prompts of every update, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompts
from rlhf_lightning.processes import Places


def prompt_loader(
    prompts: Sequence[str],
    language_model: LanguageModel,
    updates: int,
    per_update: int,
    room: int,
    *,
    seed: int,
    rank: int,
    world: int,
) -> DataLoader[Any]:
    """`updates` batches of prompts, passing over a new shuffle of all of them again and again; this rank's share of each batch.

    Args:
        room: tokens kept for the response.

    Raises:
        ConfigError: no prompts, or a batch that the processes can't share evenly.
    """
    if not prompts:
        raise ConfigError("there are no prompts to learn on: see the `task` group")
    if per_update % world:
        raise ConfigError(f"ppo.prompts_per_update={per_update} must be a multiple of the {world} processes")
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < updates * per_update:
        order += torch.randperm(len(prompts), generator=generator).tolist()
    batches = [order[i * per_update : (i + 1) * per_update][rank::world] for i in range(updates)]

    def encode(batch: Sequence[int]) -> Prompts:
        return language_model.encode_prompts([prompts[i] for i in batch], room)

    return DataLoader(batches, batch_size=None, sampler=Places(len(batches)), collate_fn=encode)  # type: ignore[arg-type]
