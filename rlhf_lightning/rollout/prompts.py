"""The prompts of every update, in an order that depends only on the seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from rlhf_lightning.errors import ConfigError, DataError, OverlongPrompt
from rlhf_lightning.flow import Prompt, Prompts
from rlhf_lightning.interfaces import TaskPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.training.distributed import SequentialResumableSampler

CHUNK = 256
"""Prompts per length check."""


@dataclass(frozen=True)
class FittingPrompts:
    """The prompts that leave room for a response.

    Attributes:
        overlong: how many prompts were left out. reason: why the first of them doesn't fit.
    """

    prompts: list[TaskPrompt]
    overlong: int
    reason: str


class PromptEncoder(Protocol):
    """A `LanguageModel`, or another encoder of its prompts. Raises OverlongPrompt if one doesn't fit."""

    def encode_prompts(self, prompts: Sequence[Prompt], max_new_tokens: int) -> Prompts: ...


def fitting_prompts(prompts: Sequence[TaskPrompt], encoders: Sequence[PromptEncoder], room: int, what: str = "prompts") -> FittingPrompts:
    """Leave out the prompts that are too long for one of the encoders.

    Args:
        room: tokens kept for the response.
        what: the prompts' name in messages.

    Raises:
        DataError: none of them fits, naming the limit; a prompt that can't be encoded for another reason than its length.
    """
    fitting: list[TaskPrompt] = []
    reason = ""
    for start in range(0, len(prompts), CHUNK):
        chunk = list(prompts[start : start + CHUNK])
        if not _overlong(chunk, encoders, room):
            fitting += chunk
            continue
        for prompt in chunk:
            problem = _overlong([prompt], encoders, room)
            reason = reason or problem
            fitting += [] if problem else [prompt]
    if prompts and not fitting:
        raise DataError(f"none of the {len(prompts)} {what} fits: {reason}")
    return FittingPrompts(fitting, len(prompts) - len(fitting), reason)


def _overlong(rows: Sequence[TaskPrompt], encoders: Sequence[PromptEncoder], room: int) -> str:
    """Reason why a prompt doesn't fit; empty if all fit."""
    try:
        for encoder in encoders:
            encoder.encode_prompts([row.prompt for row in rows], room)
    except OverlongPrompt as error:
        return str(error)
    return ""


def encode_rows(encoder: PromptEncoder, rows: Sequence[TaskPrompt], room: int, columns: Sequence[str]) -> Prompts:
    """Encode a batch of rows with these of their other columns; None where a row lacks one.

    Args:
        columns: the same for all batches of a training (`column_names`).
    """
    prompts = encoder.encode_prompts([row.prompt for row in rows], room)
    return dataclasses.replace(prompts, columns={name: [row.columns.get(name) for row in rows] for name in columns})


def column_names(rows: Sequence[TaskPrompt]) -> list[str]:
    """The names of all columns beside the prompt, in the order of their first occurrence."""
    return list(dict.fromkeys(name for row in rows for name in row.columns))


def prompt_loader(
    prompts: Sequence[TaskPrompt],
    language_model: LanguageModel,
    updates: int,
    per_update: int,
    room: int,
    *,
    seed: int,
    rank: int,
    world: int,
) -> DataLoader[Any]:
    """This rank's part of `updates` batches of prompts, shuffled anew in each pass over them.

    Args:
        room: tokens kept for the response.

    Raises:
        ConfigError: no prompts, or a batch that can't be divided among the processes.
    """
    if not prompts:
        raise ConfigError("there are no prompts to learn on: see the `task` group")
    if per_update % world:
        raise ConfigError(f"ppo.prompts_per_update={per_update} must be a multiple of the {world} processes")
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < updates * per_update:
        order += torch.randperm(len(prompts), generator=generator).tolist()
    columns = column_names(prompts)
    batches = [order[i * per_update : (i + 1) * per_update][rank::world] for i in range(updates)]

    def encode(batch: Sequence[int]) -> Prompts:
        return encode_rows(language_model, [prompts[i] for i in batch], room, columns)

    return DataLoader(batches, batch_size=None, sampler=SequentialResumableSampler(len(batches)), collate_fn=encode)  # type: ignore[arg-type]
