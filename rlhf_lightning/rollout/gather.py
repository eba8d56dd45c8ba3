"""What several processes draw together: the same responses, in the same order, as one process alone would have."""

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
    """Each prompt `responses` times, every row with a seed of its own.

    Args:
        prompts: this process's share of a batch, every `world`-th prompt from the `rank`-th on.
        generator: in the same state on every process; the seeds of all of them are drawn from it.
    """
    seeds = torch.randint(2**62, (len(prompts), world, responses), generator=generator)[:, rank].flatten()
    return dataclasses.replace(prompts.repeat(responses), seeds=seeds)


def gather_rollouts(scored: ScoredRollout, rank: int, world: int) -> ScoredRollout:
    """The rows of all processes, on each of them.

    What is compared over a batch (a group's mean, whitening, running statistics, the weight of a token) is then compared over the whole
    of it. A few numbers a token travel: little beside the gradients of one update.

    Returns:
        Rows in the order of one process alone; `group` counts the prompts of the whole batch.
    """
    if world == 1:
        return scored
    own = dataclasses.replace(scored.to("cpu"), group=scored.group.cpu() * world + rank)
    whole = concat_rollouts(all_gather(own, world))
    return whole.select(whole.group.argsort(stable=True)).to(scored.group.device)


def concat_rollouts(parts: Sequence[R]) -> R:
    """Records one after the other, padded to a common width; what isn't a row's (temperature, kl_coef) is the first one's."""
    if len(parts) == 1:
        return parts[0]
    chosen: dict[str, Any] = {}
    for field in dataclasses.fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], torch.Tensor):
            width = max(value.shape[-1] for value in values)
            left = field.name in PADDED_LEFT
            short = [width - value.shape[-1] if value.dim() > 1 else 0 for value in values]
            values = [pad(value, (missing, 0) if left else (0, missing)) for value, missing in zip(values, short, strict=True)]
            chosen[field.name] = torch.cat(values)
        elif isinstance(values[0], list):
            chosen[field.name] = [text for texts in values for text in texts]
        else:
            chosen[field.name] = values[0]
    return type(parts[0])(**chosen)
