"""The first batches over and over, also in a training that is resumed."""

from __future__ import annotations

import torch

from rlhf_lightning.training.datamodule import RepeatedBatches
from rlhf_lightning.training.distributed import shared_loader


def loader():
    rows = [torch.tensor(float(i)) for i in range(7)]
    return shared_loader(rows, 2, (0, 0, 1), torch.stack, lambda batch: batch)


def test_the_first_batches_are_those_of_every_epoch_from_any_step():
    first, second, *_ = [batch.tolist() for batch in loader()]
    repeated = RepeatedBatches(loader(), 2, first=0)
    assert len(repeated) == 4
    for _ in range(2):
        assert [batch.tolist() for batch in repeated] == [first, second, first, second]
    resumed = RepeatedBatches(loader(), 2, first=3)
    assert [[batch.tolist() for batch in resumed] for _ in range(2)] == [[second], [first, second, first, second]]
