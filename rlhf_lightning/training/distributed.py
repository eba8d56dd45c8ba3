"""What processes do together: they share batches, the same rows in the same order however many they are, and sum what each found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.training.launch import this_launch

T = TypeVar("T")
EPOCHS_OF_A_SEED = 1_000_003
"""No run has as many epochs, so that no two seeds share an order."""


class ResumableSampler(Sampler[T]):
    """A sampler whose next pass may begin at a later place than the first: a training that is resumed goes on there."""

    first = 0
    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Where Lightning tells the number of the pass."""
        self.epoch = epoch

    def taken_first(self) -> int:
        """Where this pass begins; the ones after it begin at 0 again."""
        first, self.first = self.first, 0
        return first


class Places(ResumableSampler[int]):
    """0, 1, ... in their order."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        yield from range(self.taken_first(), self.count)


class DistributedBatchSampler(ResumableSampler[list[int]]):
    """This process's rows of every batch; an empty list where a batch has fewer rows than there are processes.

    An epoch's order depends on its number and the seed alone: Lightning tells the number (`set_epoch`).
    """

    def __init__(self, rows: int, batch_size: int, seed: int, rank: int, world: int) -> None:
        self.rows, self.batch_size, self.seed, self.rank, self.world = rows, batch_size, seed, rank, world
        self.sampler = self  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * EPOCHS_OF_A_SEED + self.epoch)
        order = torch.randperm(self.rows, generator=generator).tolist()
        for start in range(self.taken_first() * self.batch_size, self.rows, self.batch_size):
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
    """Let the loader's next pass be this one, and begin at this batch; its length stays that of a whole pass.

    Raises:
        ConfigError: it has no such batch.
        TypeError: neither its batches nor its rows are drawn by an `ResumableSampler` sampler.
    """
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    if not isinstance(sampler, ResumableSampler):
        raise TypeError(
            f"{type(sampler).__name__} can't begin in the middle: make the loader by shared_loader, or of a sampler of type Onward"
        )
    if batch >= len(loader):
        raise ConfigError(
            f"the checkpoint was taken after {batch} batches of an epoch that has {len(loader)}: the data or the batch size changed"
        )
    sampler.set_epoch(epoch)
    sampler.first = batch


def batch_at(loader: DataLoader[Any], step: int) -> Any:
    """The step-th batch of a `shared_loader` that passes over its rows again and again."""
    batches: Any = loader.batch_sampler
    epoch, place = divmod(step, len(batches))
    batches.set_epoch(epoch)
    chosen = next(itertools.islice(batches, place, None))
    collate: Any = loader.collate_fn
    return collate([loader.dataset[row] for row in chosen])


def world_size() -> int:
    """How many processes train together; 1 where there is no process group."""
    return torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1


def global_rank(devices: int = 1) -> int:
    """This process's number among all, from 0, also before they have met.

    Args:
        devices: processes on each node. Whether this is the first doesn't depend on it.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return this_launch().rank(devices)


def barrier() -> None:
    """Wait for the other processes."""
    if world_size() > 1:
        torch.distributed.barrier()


def all_gather(mine: T, world: int) -> list[T]:
    """One object of each of the processes, by rank."""
    if world == 1:
        return [mine]
    found: list[Any] = [None] * world
    torch.distributed.all_gather_object(found, mine)
    return found


def raise_on_all_ranks(action: Callable[[], T]) -> T:
    """What each process does for itself, none of them waiting for another meanwhile; a UserError of one is an error of all."""
    failure, done = None, None
    try:
        done = action()
    except UserError as cause:
        failure = cause
    told = all_gather("" if failure is None else str(failure), world_size())
    if failure is not None:
        raise failure
    for rank, text in enumerate(told):
        if text:
            raise UserError(f"process {rank}: {text}")
    return cast(T, done)


def all_reduce_sum(numbers: Tensor) -> Tensor:
    """Each number's sum over the processes, without a gradient."""
    total = numbers.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(total)
    return total


def all_reduce_metrics(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Metrics of which each process has a part."""
    return dict(zip(parts, all_reduce_sum(torch.stack(list(parts.values()))).unbind(), strict=True)) if parts else {}


def no_sync(model: Any) -> AbstractContextManager[None]:
    """Gradients of this process alone, which the next ones are added to: where processes share a model, they wait for the last part."""
    context: AbstractContextManager[None] = model.no_sync() if hasattr(model, "no_sync") else nullcontext()
    return context
