"""Memory that doesn't suffice: the same work once more with half as many rows at a time, and the sizes where that doesn't help."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.training.distributed import world_size

T = TypeVar("T")
SAID = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""What messages of allocators hold that have no type of error of their own: torch's on a CPU, CUDA's libraries."""
ROLLOUT = "lower ppo.prompts_per_update, ppo.responses_per_prompt or rollout_sampler.max_new_tokens"
LOWER = {
    "sampling": ROLLOUT,
    "the scorer": ROLLOUT,
    "scoring": f"raise ppo.minibatches, or {ROLLOUT}",
    "optimisation": "lower ppo.micro_batch, sft.batch_size where ppo.ptx_coef is set, or rollout_sampler.max_new_tokens",
}
"""What helps, by the name of the work."""


@dataclass(frozen=True)
class Work:
    """Rows that go through a model, a key of LOWER, and how many of them at a time."""

    name: str
    record: Prompts
    rows: int


def retry_on_oom(work: Work, halved: dict[str, int], attempt: Callable[[int], T], model: nn.Module, log: Callable[[str], None]) -> T:
    """Do the work; where memory runs out, once more with half as many rows at a time, and with as few ever after.

    With several processes nothing is tried again: each would wait for the others at another place. The one whose memory ran out ends with
    the sizes, and its launcher ends the others.

    Args:
        halved: by the name of the work: how many rows at a time since memory ran out in it. It is written to.
        attempt: does the work in parts of `rows` divided by its argument, 1 or 2, from the beginning.

    Raises:
        UserError: memory ran out again, or with one row at a time; the message has the sizes and what to lower.
    """
    while True:
        try:
            return attempt(2 if work.name in halved else 1)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if work.name in halved or work.rows < 2 or world_size() > 1:
                raise UserError(_sizes(work, halved, model, error)) from error
        # Outside of the handler: the error's frames held what was computed.
        halved[work.name] = -(-work.rows // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log(f"out of memory in {work.name}: {halved[work.name]} responses at a time instead of {work.rows}, for the rest of this training")


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device; what a scorer raises has its own error as its cause."""
    error = error.__cause__ if isinstance(error, UserError) and error.__cause__ is not None else error
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in SAID)
    )


def _sizes(work: Work, halved: dict[str, int], model: nn.Module, error: BaseException) -> str:
    record, rows = work.record, halved.get(work.name, work.rows)
    lengths = record.prompt_mask.sum(1)
    if isinstance(record, Rollout):
        lengths = lengths + record.response_mask.sum(1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tried = " (half of what was tried first)" if work.name in halved else ""
    alone = " A single process halves by itself; of several none does, for the others would wait." if world_size() > 1 else ""
    return (
        f"out of memory in {work.name}, with {rows} of {len(record)} responses at a time{tried}: texts of up to {int(lengths.max())} "
        f"tokens, {int(lengths.sum())} together, and a model of {parameters:,} parameters; {LOWER[work.name]}.{alone} "
        f"{' '.join(str(error).split())[:200]}"
    )
