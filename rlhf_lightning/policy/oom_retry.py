"""Retry work that ran out of memory with half the batch size; report the sizes if that doesn't help."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompts, Rollout
from rlhf_lightning.training.distributed import world_size

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
OOM_MESSAGES = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
"""Parts of the messages of allocators without an error type of their own: torch's on a CPU, CUDA's libraries."""
SMALLER_ROLLOUT = "lower ppo.prompts_per_update, ppo.responses_per_prompt or rollout_sampler.max_new_tokens"
REMEDIES = {
    "sampling": SMALLER_ROLLOUT,
    "the scorer": SMALLER_ROLLOUT,
    "scoring": f"raise ppo.num_minibatches, or {SMALLER_ROLLOUT}",
    "optimisation": "lower ppo.micro_batch_size, sft.batch_size where ppo.ptx_coef is set, or rollout_sampler.max_new_tokens",
}
"""By workload."""


@dataclass(frozen=True)
class Workload:
    """Rows that go through a model.

    Attributes:
        name: a key of REMEDIES.
        batch_size: rows at a time.
    """

    name: str
    record: Prompts
    batch_size: int


def halve_on_oom(name: str, batch_size: Callable[[Any, Any], int] = lambda owner, record: len(record)) -> Callable[[F], F]:
    """Decorate a method to use half the batch size after an out-of-memory error.

    The method takes the record first, and a keyword `split`: 1, or 2 for batches of half the size. Its object has `policy`,
    `components` and `reduced_batch_sizes`.

    Args:
        name: of the workload.
        batch_size: rows at a time, of the object and the record; all of them by default.
    """

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def retrying(self: Any, record: Prompts, *args: Any) -> Any:
            workload = Workload(name, record, batch_size(self, record))
            return retry_on_oom(
                workload,
                self.reduced_batch_sizes,
                lambda split: method(self, record, *args, split=split),
                self.policy,
                self.components.log,
            )

        return retrying  # type: ignore[return-value]

    return decorate


def retry_on_oom(
    workload: Workload, reduced: dict[str, int], attempt: Callable[[int], T], model: nn.Module, log: Callable[[str], None]
) -> T:
    """Do the work; if memory runs out, repeat it with half the batch size from then on.

    With several processes nothing is repeated: the others would wait at another collective. The process that ran out of memory ends with
    the sizes, and its launcher ends the others.

    Args:
        reduced: batch sizes since memory ran out, by workload; written to.
        attempt: does the work from the beginning, in batches of the workload's size divided by its argument, 1 or 2.

    Raises:
        UserError: memory ran out again, or with one row at a time; the message has the sizes and the remedy.
    """
    while True:
        try:
            return attempt(2 if workload.name in reduced else 1)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if workload.name in reduced or workload.batch_size < 2 or world_size() > 1:
                raise UserError(_sizes(workload, reduced, model, error)) from error
        # Outside the handler: the error's frames keep the computed tensors alive.
        reduced[workload.name] = -(-workload.batch_size // 2)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log(
            f"out of memory in {workload.name}: {reduced[workload.name]} responses at a time instead of {workload.batch_size}, "
            "for the rest of this training"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise a failed allocation, on any device, or in a scorer (its UserError has the cause)."""
    error = error.__cause__ if isinstance(error, UserError) and error.__cause__ is not None else error
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OOM_MESSAGES)
    )


def _sizes(workload: Workload, reduced: dict[str, int], model: nn.Module, error: BaseException) -> str:
    record, batch_size = workload.record, reduced.get(workload.name, workload.batch_size)
    lengths = record.prompt_mask.sum(1)
    if isinstance(record, Rollout):
        lengths = lengths + record.response_mask.sum(1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    half = " (half of the first attempt)" if workload.name in reduced else ""
    no_retry = " A single process halves its batches; several don't, because the others would wait." if world_size() > 1 else ""
    return (
        f"out of memory in {workload.name}, with {batch_size} of {len(record)} responses at a time{half}: texts of up to "
        f"{int(lengths.max())} tokens, {int(lengths.sum())} together, and a model of {parameters:,} parameters; "
        f"{REMEDIES[workload.name]}.{no_retry} {' '.join(str(error).split())[:200]}"
    )
