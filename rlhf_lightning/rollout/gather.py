"""Rollouts of several processes: the responses and their order are those of a single process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch.nn.functional import pad

from rlhf_lightning.flow import Prompts, Rollout, ScoredRollout
from rlhf_lightning.training.distributed import all_gather

R = TypeVar("R", bound=Rollout)
PADDED_LEFT = ("prompt_ids", "prompt_mask")


def expand_prompts(prompts: Prompts, responses: int, generator: torch.Generator, rank: int, world: int) -> Prompts:
    """Each prompt `responses` times, each row with its seed.

    Args:
        prompts: this process's part of a batch: every `world`-th prompt, starting at the `rank`-th.
        generator: in the same state on every process; draws the seeds of all of them.
    """
    seeds = torch.randint(2**62, (len(prompts), world, responses), generator=generator)[:, rank].flatten()
    return dataclasses.replace(prompts.repeat(responses), seeds=seeds)


def gather_rollouts(scored: ScoredRollout, rank: int, world: int) -> ScoredRollout:
    """Gather the rows of all processes on each of them.

    Group means, whitening, running statistics and token weights then cover the complete batch. The traffic, a few numbers per token, is
    small compared with the gradients of one update.

    Returns:
        Rows in the order of a single process; `group` counts the prompts of the complete batch.
    """
    if world == 1:
        return scored
    local = dataclasses.replace(scored.to("cpu"), group=scored.group.cpu() * world + rank)
    gathered = concat_rollouts(all_gather(local, world))
    return gathered.select(gathered.group.argsort(stable=True)).to(scored.group.device)


def concat_rollouts(parts: Sequence[R]) -> R:
    """Concatenate records, padded to a common width; scalars (temperature, kl_coef) are the first one's."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        pad_left = field.name in PADDED_LEFT
        if isinstance(values[0], dict):
            columns[field.name] = {key: _concat([value[key] for value in values], pad_left) for key in values[0]}
        else:
            columns[field.name] = _concat(values, pad_left)
    return type(parts[0])(**columns)


def _concat(values: Sequence[Any], pad_left: bool) -> Any:
    """Concatenate tensors, padded to a common width, or lists; of other values the first."""
    if isinstance(values[0], torch.Tensor):
        width = max(value.shape[-1] for value in values)
        short = [width - value.shape[-1] if value.dim() > 1 else 0 for value in values]
        return torch.cat([pad(value, (missing, 0) if pad_left else (0, missing)) for value, missing in zip(values, short, strict=True)])
    return [item for value in values for item in value] if isinstance(values[0], list) else values[0]
