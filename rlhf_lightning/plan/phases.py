"""Memory of a job in one process, phase by phase, as a range of the peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_lightning.plan.device import GIB
from rlhf_lightning.plan.models import Part
from rlhf_lightning.plan.passes import PassMemory

OVERHEAD = 0.1
"""Upper bound: bytes that an allocator holds beyond the living tensors, per byte of them. PyTorch's caching allocator rounds and splits its
blocks; a CPU's libraries have buffers of their own."""
HEAP_OVERHEAD = 2.5
"""Upper bound on a CPU: bytes of freed blocks that the C library's heap holds, per living byte in such blocks (fake_run.HEAP_BLOCK). The
shapes of batches differ, so that freed blocks seldom fit the next ones. The most of the trainings of benchmarks/plan.py was 2.3."""
FIRST_STEPS = 64 * 2**20
"""Upper bound on a CPU: bytes that a first training touches beyond the imports, for any model: code of PyTorch, Lightning and the tokenizer
that is loaded on first use, and kernels compiled by oneDNN."""
CONTEXT = (0.3 * GIB, 0.8 * GIB)
"""Bounds of the CUDA context and its libraries' workspaces. Not measured."""

ROLLOUT, SCORING, TRAINING, STEP, EVALUATION, COLLECTING = (
    "rollout", "scoring", "training", "optimiser step", "evaluation", "collecting",
)  # fmt: skip


class ByteRange(NamedTuple):
    """Lower and upper bound of a number of bytes."""

    low: float
    high: float


@dataclass(frozen=True)
class Setup:
    """Processes, strategy and precision of a job.

    Attributes:
        host: on a CPU, where a process's memory includes Python and its libraries.
        world_size: the number of processes. strategy: single, ddp or fsdp2.
        base: bytes of a process after its imports. keeps_freed: the C library's heap keeps freed blocks.
        shard_frozen: reference and reward model are sharded too.
    """

    precision: str
    host: bool
    world_size: int = 1
    strategy: str = "single"
    base: float = 0.0
    shard_frozen: bool = False
    keeps_freed: bool = False

    @property
    def shards(self) -> int:
        """The number of processes that share what is trained."""
        return self.world_size if self.strategy == "fsdp2" else 1

    @property
    def frozen_shards(self) -> int:
        return self.shards if self.shard_frozen else 1


@dataclass(frozen=True)
class Phase:
    """A phase of a job.

    Attributes:
        resident: bytes of weights, gradients and optimizer states throughout.
        passes: the largest pass of each role.
        transient: bytes at the peak of the largest of them.
        extra: bytes of records, gradient buckets, gathered weights.
        seconds: of one update or step.
    """

    name: str
    resident: float
    passes: dict[str, PassMemory]
    transient: float
    extra: float = 0.0
    seconds: float = 0.0

    @property
    def bytes(self) -> float:
        """Living bytes at the peak."""
        return self.resident + self.transient + self.extra

    @property
    def heap(self) -> float:
        """The part in small blocks, of the pass with most of them."""
        return max((memory.heap for memory in self.passes.values()), default=0.0)


@dataclass(frozen=True)
class Plan:
    """A job's models and phases, and the range of its peak."""

    setup: Setup
    parts: Sequence[Part]
    phases: Sequence[Phase]

    @property
    def base(self) -> ByteRange:
        """Bytes of a process before any model."""
        return ByteRange(self.setup.base, self.setup.base + FIRST_STEPS) if self.setup.host else ByteRange(*CONTEXT)

    @property
    def peak(self) -> ByteRange:
        """Bytes of a process: those of living tensors, and with its allocator's overhead."""
        peaks = [self.peak_of(phase) for phase in self.phases]
        return ByteRange(max(peak.low for peak in peaks), max(peak.high for peak in peaks))

    def peak_of(self, phase: Phase) -> ByteRange:
        """The range of one phase."""
        heap = HEAP_OVERHEAD * phase.heap if self.setup.keeps_freed else 0.0
        return ByteRange(self.base.low + phase.bytes, self.base.high + (1 + OVERHEAD) * phase.bytes + heap)

    @property
    def update_seconds(self) -> float:
        """Seconds of one update (or step): the repeated phases."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def generation_fraction(self) -> float:
        """Of an update's time; 0 in jobs that generate nothing."""
        return sum(phase.seconds for phase in self.phases if phase.name == ROLLOUT) / max(self.update_seconds, 1e-12)
