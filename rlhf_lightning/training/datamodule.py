"""The data module of every training: each rank makes its own data loader."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from rlhf_lightning.training.distributed import begin_at
from rlhf_lightning.training.trainer import REPEATED


class ShardedData(L.LightningDataModule):
    """Makes the data loader of (rank, world size), and resumes a training in the middle of an epoch.

    Ranks take disjoint rows of each batch: two processes see together what one process sees.
    """

    def __init__(self, loader: Callable[[int, int], DataLoader[Any]]) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> DataLoader[Any] | RepeatedBatches:
        assert self.trainer is not None
        loader = self.loader(self.trainer.global_rank, self.trainer.world_size)
        # A loader draws a number in each epoch; torch's global generator would then differ after a resume.
        loader.generator = torch.Generator()
        fit_loop: Any = self.trainer.fit_loop
        epoch = fit_loop.epoch_progress.current.processed
        batch = fit_loop.epoch_loop.batch_progress.current.processed if fit_loop.restarting else 0
        repeated = getattr(self.trainer, REPEATED, None)
        if repeated is not None:
            return RepeatedBatches(loader, repeated, batch)
        if epoch or batch:
            begin_at(loader, epoch, batch)
        return loader


class RepeatedBatches:
    """The first batches of a loader in the place of all of its batches, in every epoch.

    Args:
        first: index at which the next epoch begins.
    """

    def __init__(self, loader: DataLoader[Any], count: int, first: int) -> None:
        self.loader, self.count, self.first = loader, count, first

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        begin_at(self.loader, 0, 0)
        batches = list(itertools.islice(self.loader, self.count))
        first, self.first = self.first, 0
        yield from (batches[index % len(batches)] for index in range(first, len(self)))
