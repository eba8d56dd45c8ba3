"""Distributed batches and reductions: the same batches for any world size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.training.launch import detect_launch

T = TypeVar("T")
MAX_EPOCHS = 1_000_003
"""Of a run, so that no two seeds share an order of rows."""


class ResumableSampler(Sampler[T]):
    """A sampler whose next epoch may begin in its middle, where a training is resumed.

    Attributes:
        first: index at which the next epoch begins.
        epoch: its number, set by Lightning.
    """

    first = 0
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def pop_first(self) -> int:
        """Return `first` and reset it to 0 for the epochs after."""
        first, self.first = self.first, 0
        return first


class SequentialResumableSampler(ResumableSampler[int]):
    """0, 1, ... in order."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        yield from range(self.pop_first(), self.count)


class DistributedBatchSampler(ResumableSampler[list[int]]):
    """This rank's rows of each shuffled batch; none if a batch has fewer rows than processes.

    The order of an epoch depends on its number and the seed.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int, world: int) -> None:
        self.rows, self.batch_size, self.seed, self.rank, self.world = rows, batch_size, seed, rank, world
        self.sampler = self  # Lightning calls batch_sampler.sampler.set_epoch

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * MAX_EPOCHS + self.epoch)
        order = torch.randperm(self.rows, generator=generator).tolist()
        for start in range(self.pop_first() * self.batch_size, self.rows, self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.world]


def shared_loader(
    rows: Sequence[Any],
    batch_size: int,
    share: tuple[int, int, int],
    collate: Callable[[list[Any]], T],
    blank: Callable[[T], T],
    micro_batch_size: int | None = None,
) -> DataLoader[Any]:
    """Shuffled batches of `batch_size` rows over all processes, new ones in every epoch.

    Args:
        rows: at least one.
        share: seed, rank and number of processes.
        blank: gives a batch weight 0. A process without a row of a batch gets a blank one, because the others wait for its gradients.
        micro_batch_size: rows of a micro-batch; batches are then lists of micro-batches, as many on each process.
    """
    rank_size = -(-batch_size // share[2])

    def collate_rows(batch: list[Any]) -> T:
        return collate(batch) if batch else blank(collate([rows[0]]))

    def collate_micro_batches(batch: list[Any]) -> list[T]:
        size = len(batch) if share[2] == 1 else rank_size
        return [collate_rows(batch[start : start + micro_batch_size]) for start in range(0, size, micro_batch_size)]  # type: ignore[arg-type, operator]

    collate_fn: Any = collate_rows if micro_batch_size is None else collate_micro_batches
    return DataLoader(rows, batch_sampler=DistributedBatchSampler(len(rows), batch_size, *share), collate_fn=collate_fn)  # type: ignore[arg-type]


def begin_at(loader: DataLoader[Any], epoch: int, batch: int) -> None:
    """Let a loader's next epoch be number `epoch` and begin at `batch`; its length stays the same.

    Raises:
        ConfigError: it has no such batch.
        TypeError: the loader has no `ResumableSampler`.
    """
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    if not isinstance(sampler, ResumableSampler):
        raise TypeError(
            f"{type(sampler).__name__} can't begin in the middle: make the loader with shared_loader, or with a ResumableSampler"
        )
    if batch >= len(loader):
        raise ConfigError(
            f"the checkpoint was taken after {batch} batches of an epoch that has {len(loader)}: the data or the batch size changed"
        )
    sampler.set_epoch(epoch)
    sampler.first = batch


def batch_at(loader: DataLoader[Any], step: int) -> Any:
    """Batch number `step` of a `shared_loader` that is repeated without end."""
    batches: Any = loader.batch_sampler
    epoch, index = divmod(step, len(batches))
    batches.set_epoch(epoch)
    rows = next(itertools.islice(batches, index, None))
    collate: Any = loader.collate_fn
    return collate([loader.dataset[row] for row in rows])


def world_size() -> int:
    """Number of processes in the group; 1 without a group."""
    return torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1


def global_rank(devices: int = 1) -> int:
    """This process's rank, also before the process group exists.

    Args:
        devices: processes on each node; rank 0 is rank 0 for any number.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return detect_launch().rank(devices)


def barrier() -> None:
    """Wait for the other processes."""
    if world_size() > 1:
        torch.distributed.barrier()


def all_gather(mine: T, world: int) -> list[T]:
    """The object of each rank, in order."""
    if world == 1:
        return [mine]
    gathered: list[Any] = [None] * world
    torch.distributed.all_gather_object(gathered, mine)
    return gathered


def raise_on_all_ranks(action: Callable[[], T]) -> T:
    """Run a local action, without collectives, on each rank; a UserError on one rank is raised on all."""
    error, result = None, None
    try:
        result = action()
    except UserError as cause:
        error = cause
    messages = all_gather("" if error is None else str(error), world_size())
    if error is not None:
        raise error
    for rank, message in enumerate(messages):
        if message:
            raise UserError(f"process {rank}: {message}")
    return cast(T, result)


def all_reduce_sum(numbers: Tensor) -> Tensor:
    """Sum each number over the processes, without gradient."""
    total = numbers.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(total)
    return total


def all_reduce_metrics(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum metrics of which each process has a part."""
    return dict(zip(parts, all_reduce_sum(torch.stack(list(parts.values()))).unbind(), strict=True)) if parts else {}


def no_sync(model: Any) -> AbstractContextManager[None]:
    """Accumulate gradients locally inside: DDP averages them in the next backward pass outside."""
    context: AbstractContextManager[None] = model.no_sync() if hasattr(model, "no_sync") else nullcontext()
    return context
