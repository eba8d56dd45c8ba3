"""Processes that share batches see together what one sees alone, epoch by epoch."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.training.distributed import DistributedBatchSampler, SequentialResumableSampler, begin_at, shared_loader

SIZES = {"rows": st.integers(1, 30), "batch_size": st.integers(1, 12), "world": st.integers(1, 5), "seed": st.integers(0, 3)}


@given(**SIZES)
def test_the_processes_shares_make_up_the_batches_of_one(rows, batch_size, world, seed):
    alone = list(DistributedBatchSampler(rows, batch_size, seed, 0, 1))
    shares = [list(DistributedBatchSampler(rows, batch_size, seed, rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)} == {len(DistributedBatchSampler(rows, batch_size, seed, 0, world))}
    for number, batch in enumerate(alone):
        together = [share[number] for share in shares]
        assert sorted(row for part in together for row in part) == sorted(batch)
        assert max(map(len, together)) - min(map(len, together)) <= 1
    assert sorted(row for batch in alone for row in batch) == list(range(rows))


def test_an_epoch_has_an_order_of_its_own_that_only_the_seed_says():
    batches, again, other = (DistributedBatchSampler(40, 8, seed, 0, 1) for seed in (3, 3, 4))
    first = list(batches)
    assert list(again) == first != list(other)
    batches.set_epoch(1)
    second = list(batches)
    assert second != first
    again.set_epoch(1)
    assert list(again) == second


def test_who_has_no_row_gets_a_batch_that_counts_nothing():
    loader = shared_loader([10, 20, 30], 2, (0, 1, 2), collate=sum, blank=lambda total: -total)
    whole, last = list(loader)
    assert whole in (10, 20, 30)
    assert last == -10


@given(**SIZES, data=st.data())
def test_a_pass_that_begins_in_its_middle_is_the_rest_of_the_whole_one(rows, batch_size, world, seed, data):
    """Of the epoch that is asked for; the pass after it is whole again."""
    loader = shared_loader(range(rows), batch_size, (seed, 0, world), collate=list, blank=list)
    epoch, batch = data.draw(st.integers(0, 3)), data.draw(st.integers(0, len(loader) - 1))
    batches = loader.batch_sampler
    batches.set_epoch(epoch)
    whole = list(batches)
    batches.set_epoch(0)
    begin_at(loader, epoch, batch)
    assert len(loader) == len(whole)
    assert list(batches) == whole[batch:]
    assert list(batches) == whole


def test_places_begin_where_they_are_set_once():
    loader = DataLoader([[0], [1], [2]], batch_size=None, sampler=SequentialResumableSampler(3))
    begin_at(loader, 0, 2)
    assert len(loader) == 3
    assert [list(loader), list(loader)] == [[[2]], [[0], [1], [2]]]


def test_a_place_that_is_not_there_and_a_loader_that_can_not_are_refused():
    loader = shared_loader(range(4), 2, (0, 0, 1), collate=list, blank=list)
    with pytest.raises(ConfigError, match="after 2 batches of an epoch that has 2"):
        begin_at(loader, 0, 2)
    with pytest.raises(TypeError, match="can't begin in the middle"):
        begin_at(DataLoader([1, 2]), 0, 1)


class Remembers(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[list[int]]] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: list[int], batch_idx: int) -> torch.Tensor:
        self.seen[-1].append(batch)
        return self.weight * 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_tells_the_epoch():
    module = Remembers()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, shared_loader(list(range(20)), 5, (0, 0, 1), collate=list, blank=list))
    assert len(module.seen) == 3
    assert module.seen[0] != module.seen[1] != module.seen[2]
    expected = DistributedBatchSampler(20, 5, 0, 0, 1)
    for epoch, batches in enumerate(module.seen):
        expected.set_epoch(epoch)
        assert batches == list(expected)
