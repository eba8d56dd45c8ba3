"""Batches that keep the judgements on one prompt together, so that each response is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import DataLoader

from rlhf_lightning.training.distributed import shared_loader

B = TypeVar("B")


def prompt_groups(prompts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Group rows by prompt, in groups of at most `size`.

    Args:
        prompts: a number for each row.

    Returns:
        the order of the rows (prompts by first occurrence, rows in their order), and the bounds of the groups in it.
    """
    _, first, group = np.unique(prompts, return_index=True, return_inverse=True)
    order = np.argsort(first[group], kind="stable")
    counts = np.unique(first[group], return_counts=True)[1]
    ends = counts.cumsum()
    starts = [start for end, count in zip(ends.tolist(), counts.tolist(), strict=True) for start in range(end - count, end, size)]
    return order, np.array([*starts, len(prompts)])


class PromptGroups(Sequence[np.ndarray]):
    """Rows of judgements in groups of at most `size`, each group on one prompt."""

    def __init__(self, prompts: np.ndarray, size: int) -> None:
        self.order, self.bounds = prompt_groups(prompts, size)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        return self.order[self.bounds[index] : self.bounds[index + 1]]


def group_loader(
    prompts: np.ndarray,
    max_group_size: int,
    batch_size: int,
    shard: tuple[int, int, int],
    collate: Callable[[np.ndarray], B],
    blank: Callable[[B], B],
    micro_batch_size: int | None = None,
) -> DataLoader[Any]:
    """Build a loader with batches of about `batch_size` judgements over all processes, grouped by prompt.

    Args:
        prompts: a number for each judgement.
        max_group_size: judgements of a group.
        shard: seed, rank and world size.
        collate: makes a batch of rows.
        micro_batch_size: judgements of a micro-batch, about; batches are then lists of micro-batches.
    """
    groups = PromptGroups(prompts, max_group_size)

    def group_count(judgements: int) -> int:
        return max(1, round(judgements * len(groups) / len(prompts)))

    micro_groups = None if micro_batch_size is None else group_count(micro_batch_size)
    return shared_loader(groups, group_count(batch_size), shard, lambda batch: collate(np.concatenate(batch)), blank, micro_groups)
