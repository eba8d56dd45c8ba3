"""The data module of every training: each rank makes its own data loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from rlhf_lightning.training.distributed import begin_at


class ShardedData(L.LightningDataModule):
    """Makes the data loader of (rank, world size), and resumes a training in the middle of an epoch.

    Ranks take disjoint rows of each batch: two processes see together what one process sees.
    """

    def __init__(self, loader: Callable[[int, int], DataLoader[Any]]) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        loader = self.loader(self.trainer.global_rank, self.trainer.world_size)
        # A loader draws a number in each epoch; torch's global generator would then differ after a resume.
        loader.generator = torch.Generator()
        fit_loop: Any = self.trainer.fit_loop
        epoch = fit_loop.epoch_progress.current.processed
        batch = fit_loop.epoch_loop.batch_progress.current.processed if fit_loop.restarting else 0
        if epoch or batch:
            begin_at(loader, epoch, batch)
        return loader
