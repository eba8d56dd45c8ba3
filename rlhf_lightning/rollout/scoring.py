"""Interface of a scorer, and the validation of its scores."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.training.distributed import raise_on_all_ranks


class Scorer(Protocol):
    """Scores [B] for a rollout, from its texts or its tokens; higher is better.

    It returns a tensor [B] of any dtype on any device, an array, or a list of B numbers. NaN, and None in a list, mean that a response
    can't be scored: it is excluded from the update.
    """

    def __call__(self, rollout: Rollout, /) -> Tensor | Sequence[float | None]: ...


def scores_on_all_ranks(scorer: Scorer, rollout: Rollout) -> Tensor:
    """`checked_scores` of this process's responses; an error on one process is raised on all."""
    return raise_on_all_ranks(lambda: checked_scores(scorer, rollout))


def checked_scores(scorer: Scorer, rollout: Rollout) -> Tensor:
    """Score a rollout and validate the scores: float32 [B], finite, or NaN for no score.

    The scorer gets a copy of the rollout. Its changes to the working directory, torch's default dtype and grad mode are undone.

    Raises:
        UserError: the scorer raised or called sys.exit; another number of scores than responses; a score that is no number or infinite.
            The message names the scorer and the response.
    """
    name, copied = scorer_name(scorer), rollout.select(torch.arange(len(rollout), device=rollout.group.device))
    try:
        with _environment_restored():
            output = scorer(copied)
    except UserError:
        raise
    except (Exception, SystemExit) as cause:
        sizes = f"{len(rollout)} responses, the first {_short(rollout.responses[0])}" if len(rollout) else "no response"
        frames = "".join(traceback.format_tb(cause.__traceback__)[1:])
        raise UserError(f"scorer {name} raised {type(cause).__name__}: {cause} (given {sizes})\n{frames}".rstrip()) from cause
    numbers = _as_tensor(output, name, len(rollout)).detach()
    scores = numbers.float()
    infinite = scores.isinf().nonzero().flatten().tolist()
    if infinite:
        raise UserError(f"scorer {name} returned {numbers[infinite[0]].item()} for the response {_short(rollout.responses[infinite[0]])}")
    return scores


def scorer_name(scorer: Any) -> str:
    """Name of a scorer's function or class, for messages."""
    while isinstance(scorer, partial):
        scorer = scorer.func
    return getattr(scorer, "__qualname__", None) or type(scorer).__qualname__


@contextmanager
def _environment_restored() -> Iterator[None]:
    folder, dtype = os.getcwd(), torch.get_default_dtype()
    try:
        with torch.no_grad():
            yield
    finally:
        os.chdir(folder)
        torch.set_default_dtype(dtype)


def _as_tensor(output: Any, name: str, count: int) -> Tensor:
    """Convert a scorer's output to a tensor [count]."""
    if isinstance(output, Tensor):
        if output.shape != (count,):
            raise UserError(f"scorer {name} returned shape {list(output.shape)} for {count} responses; it must be [{count}]")
        if output.is_complex():
            raise UserError(f"scorer {name} returned complex numbers ({output.dtype}); a score is a real number")
        return output
    items = output.tolist() if hasattr(output, "tolist") else output
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise UserError(f"scorer {name} must return a tensor or a list of {count} scores, not {type(output).__name__}")
    if len(items) != count:
        raise UserError(f"scorer {name} returned {len(items)} scores for {count} responses")
    return torch.tensor([_number(item, name, i) for i, item in enumerate(items)], dtype=torch.float64)


def _number(item: Any, name: str, position: int) -> float:
    if item is None:
        return float("nan")
    if isinstance(item, Tensor) and item.numel() == 1 and not item.is_complex():
        return float(item.item())
    if not isinstance(item, Real):
        raise UserError(f"scorer {name} returned {item!r:.80} ({type(item).__name__}) as score {position}; a score is a number, or None")
    try:
        return float(item)
    except OverflowError:
        return float("inf")


def _short(response: str) -> str:
    return repr(response[:80])
