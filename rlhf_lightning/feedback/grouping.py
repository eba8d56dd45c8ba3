"""What was said about one prompt, kept together: each response is then read once for all that was said about it."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from rlhf_lightning.errors import ConfigError


def prompt_groups(prompts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows put in groups of at most `size`, each of one prompt.

    Args:
        prompts: a number for each row.

    Returns:
        the rows' order, groups as their prompts first come and in them rows in theirs; and the bounds of the groups in it.
    """
    _, first, group = np.unique(prompts, return_index=True, return_inverse=True)
    order = np.argsort(first[group], kind="stable")
    counts = np.unique(first[group], return_counts=True)[1]
    ends = counts.cumsum()
    starts = [start for end, count in zip(ends.tolist(), counts.tolist(), strict=True) for start in range(end - count, end, size)]
    return order, np.array([*starts, len(prompts)])


class Groups(Dataset[Any], Sized):
    """What a loader draws from: groups of judgements, each on one prompt."""


def group_loader(
    groups: Groups, judgements: int, batch_size: int, seed: int, rank: int, world: int, collate: Callable[[list[Any]], Any]
) -> DataLoader[Any]:
    """Batches of about `batch_size` of the judgements, new ones in every epoch; each process takes its share of every batch.

    Raises:
        ConfigError: fewer groups than processes.
    """
    if len(groups) < world:
        raise ConfigError(f"feedback on {len(groups)} prompts can't be shared by {world} processes")
    usable = len(groups) - len(groups) % world
    return DataLoader(
        Subset(groups, range(rank, usable, world)),
        batch_size=max(1, round(batch_size * len(groups) / judgements / world)),
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=collate,
    )
