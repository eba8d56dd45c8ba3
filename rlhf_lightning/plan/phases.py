"""What a job needs, phase by phase, in one process: what stays, and what its passes take beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf_lightning.plan.device import GIB
from rlhf_lightning.plan.models import Part
from rlhf_lightning.plan.passes import PassMemory

HOST_SLACK = 1.05
"""What a process holds beyond the tensors that are alive, on a CPU: assumed, and borne out by benchmarks/plan.py."""
HEAP_SLACK, REWARD_HEAP_SLACK, SFT_HEAP_SLACK, PREFERENCE_HEAP_SLACK = 0.9, 0.5, 1.4, 1.5
"""What glibc's heap keeps of blocks that were freed, for each byte of the peak in such blocks (rehearsal.HEAP_BLOCK): shapes differ from
batch to batch, so that holes seldom fit; most where a policy learns from given texts, whose logits are the largest such blocks. Fitted to
the trainings of benchmarks/plan.py, whose spread is in docs/howto/plan.md. Nothing where MALLOC_MMAP_THRESHOLD_ sends such blocks back to
the system."""
GPU_SLACK = 1.1
"""The same of PyTorch's caching allocator, whose blocks are rounded and split. Not measured."""
GPU_CONTEXT = 0.6 * GIB
"""The CUDA context and its libraries' workspaces. Not measured."""


@dataclass(frozen=True)
class Setup:
    """How a job runs.

    Attributes:
        processes: that train together. strategy: single, ddp or fsdp2.
        host: on a CPU, whose processes' memory is counted with what Python and its libraries take.
        base: bytes of a process before any model. keeps_freed: the C library's heap does.
        frozen_sharded: reference and reward model are shared out as well.
    """

    precision: str
    host: bool
    processes: int = 1
    strategy: str = "single"
    base: float = 0.0
    frozen_sharded: bool = False
    keeps_freed: bool = False

    @property
    def shares(self) -> int:
        """Processes over which what is trained is shared out."""
        return self.processes if self.strategy == "fsdp2" else 1

    @property
    def frozen_shares(self) -> int:
        return self.shares if self.frozen_sharded else 1


@dataclass(frozen=True)
class Phase:
    """A phase of a job.

    Attributes:
        resident: bytes of weights, gradients and the optimiser's averages that are there throughout.
        taken: the largest pass of each role. at_once: bytes of the largest of them, beside `resident` and `beside`.
        beside: records, buckets, gathered weights.
        seconds: of one update or step. heap_slack: what the heap keeps, on a CPU.
    """

    name: str
    resident: float
    taken: dict[str, PassMemory]
    at_once: float
    beside: float = 0.0
    seconds: float = 0.0
    heap_slack: float = HEAP_SLACK

    @property
    def bytes(self) -> float:
        return self.resident + self.at_once + self.beside


@dataclass(frozen=True)
class Plan:
    """A job's models and phases, and the most that a process has at a time."""

    setup: Setup
    parts: Sequence[Part]
    phases: Sequence[Phase]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def peak(self) -> float:
        """Bytes of a process, with what its allocator keeps beyond what is alive."""
        return max(self.of(phase) for phase in self.phases)

    @property
    def beyond_base(self) -> float:
        return self.peak - self.base

    @property
    def base(self) -> float:
        return self.setup.base if self.setup.host else GPU_CONTEXT

    def of(self, phase: Phase) -> float:
        """A phase's peak."""
        heap = max((taken.heap for taken in phase.taken.values()), default=0.0)
        kept = phase.heap_slack * heap if self.setup.keeps_freed else 0.0
        return self.base + phase.bytes * (HOST_SLACK if self.setup.host else GPU_SLACK) + kept

    @property
    def update_seconds(self) -> float:
        """Of one update (or step): the phases that come again."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def generation_share(self) -> float:
        """Of an update's time; 0 where nothing is generated."""
        return sum(phase.seconds for phase in self.phases if phase.name == ROLLOUT) / max(self.update_seconds, 1e-12)


ROLLOUT, SCORING, TRAINING, STEP, EVALUATION, COLLECTING = (
    "rollout", "scoring", "training", "optimiser step", "evaluation", "collecting",
)  # fmt: skip


def weights_of(parts: Sequence[Part]) -> float:
    return sum(part.weights for part in parts)


def states_of(parts: Sequence[Part]) -> float:
    """Gradients and the optimiser's averages."""
    return sum(part.gradients + part.optimiser for part in parts)
