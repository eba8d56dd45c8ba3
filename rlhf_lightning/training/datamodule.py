"""Data for any stage's Trainer: each process makes the loader of its own share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from rlhf_lightning.training.distributed import begin_at


class ShardedData(L.LightningDataModule):
    """A loader made from (rank, world size), once those are known. Every batch is shared by rank, so that two processes with half a
    batch each see what one process sees whole. A training that is resumed in an epoch goes on at the batch after its last."""

    def __init__(self, loader: Callable[[int, int], DataLoader[Any]]) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        loader = self.loader(self.trainer.global_rank, self.trainer.world_size)
        # A loader draws a number at each pass; from torch's own generator it would shift what the model draws after a resume.
        loader.generator = torch.Generator()
        fit_loop: Any = self.trainer.fit_loop
        epoch = fit_loop.epoch_progress.current.processed
        batch = fit_loop.epoch_loop.batch_progress.current.processed if fit_loop.restarting else 0
        if epoch or batch:
            begin_at(loader, epoch, batch)
        return loader
