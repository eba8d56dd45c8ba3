"""The prompts of every update, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from rlhf_lightning.errors import ConfigError, DataError, OverlongPrompt
from rlhf_lightning.flow import Prompts
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.training.distributed import SequentialResumableSampler

ENCODED_TOGETHER = 256
"""Prompts whose lengths are checked at a time."""


@dataclass(frozen=True)
class FittingPrompts:
    """The prompts that leave room for a response.

    Attributes:
        overlong: how many prompts were left out. reason: why the first of them doesn't fit.
    """

    prompts: list[str]
    overlong: int
    reason: str


class PromptEncoder(Protocol):
    """A `LanguageModel`, or another reader of its prompts. Raises OverlongPrompt where one of them doesn't fit."""

    def encode_prompts(self, prompts: Sequence[str], max_new_tokens: int) -> Prompts: ...


def fitting_prompts(prompts: Sequence[str], encoders: Sequence[PromptEncoder], room: int, what: str = "prompts") -> FittingPrompts:
    """Leave out the prompts that are too long for one of the encoders.

    Args:
        room: tokens kept for the response.
        what: the prompts' name in messages.

    Raises:
        DataError: none of them fits, naming the limit; a prompt that can't be encoded for another reason than its length.
    """
    kept: list[str] = []
    reason = ""
    for start in range(0, len(prompts), ENCODED_TOGETHER):
        chunk = list(prompts[start : start + ENCODED_TOGETHER])
        if not _overlong(chunk, encoders, room):
            kept += chunk
            continue
        for prompt in chunk:
            problem = _overlong([prompt], encoders, room)
            reason = reason or problem
            kept += [] if problem else [prompt]
    if prompts and not kept:
        raise DataError(f"none of the {len(prompts)} {what} fits: {reason}")
    return FittingPrompts(kept, len(prompts) - len(kept), reason)


def _overlong(prompts: Sequence[str], encoders: Sequence[PromptEncoder], room: int) -> str:
    """Why the prompts don't all fit; empty where they do."""
    try:
        for encoder in encoders:
            encoder.encode_prompts(prompts, room)
    except OverlongPrompt as error:
        return str(error)
    return ""


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

    return DataLoader(batches, batch_size=None, sampler=SequentialResumableSampler(len(batches)), collate_fn=encode)  # type: ignore[arg-type]
