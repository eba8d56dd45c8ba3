"""Data for any stage's Trainer: each process makes the loader of its own share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
from torch.utils.data import DataLoader


class ShardedData(L.LightningDataModule):
    """A loader made from (rank, world size), once those are known. Every batch is shared by rank, so that two processes with half a
    batch each see what one process sees whole."""

    def __init__(self, loader: Callable[[int, int], DataLoader[Any]]) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        return self.loader(self.trainer.global_rank, self.trainer.world_size)
