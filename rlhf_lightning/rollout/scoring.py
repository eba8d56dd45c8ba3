"""What scores a response, and the check that every score passes."""

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

    Taken are a tensor [B] of any dtype on any device, an array, or a list of B numbers. NaN, and None in a list, say that a response can't
    be scored: it is left out of what is learned from.
    """

    def __call__(self, rollout: Rollout, /) -> Tensor | Sequence[float | None]: ...


def agreed_scores(scorer: Scorer, rollout: Rollout) -> Tensor:
    """`checked_scores` of this process's share; an error on one process is an error on all, so that none waits for another."""
    return raise_on_all_ranks(lambda: checked_scores(scorer, rollout))


def checked_scores(scorer: Scorer, rollout: Rollout) -> Tensor:
    """The scorer's scores as float32 [B], finite or NaN: a response that can't be scored.

    The scorer gets a copy of the rollout, and what it changes around it is put back: the working directory, torch's default dtype, whether
    gradients are taken.

    Raises:
        UserError: the scorer raised or called sys.exit; another number of scores than of responses; what is no number; an infinite score.
            The message names the scorer and the response.
    """
    name, copied = name_of(scorer), rollout.select(torch.arange(len(rollout), device=rollout.group.device))
    try:
        with _surroundings_kept():
            given = scorer(copied)
    except UserError:
        raise
    except (Exception, SystemExit) as cause:
        asked = f"{len(rollout)} responses, the first {_short(rollout.responses[0])}" if len(rollout) else "no response"
        frames = "".join(traceback.format_tb(cause.__traceback__)[1:])
        raise UserError(f"scorer {name} raised {type(cause).__name__}: {cause} (given {asked})\n{frames}".rstrip()) from cause
    numbers = _as_tensor(given, name, len(rollout)).detach()
    scores = numbers.float()
    infinite = scores.isinf().nonzero().flatten().tolist()
    if infinite:
        raise UserError(f"scorer {name} returned {numbers[infinite[0]].item()} for the response {_short(rollout.responses[infinite[0]])}")
    return scores


def name_of(scorer: Any) -> str:
    """What a message calls a scorer: its function or class."""
    while isinstance(scorer, partial):
        scorer = scorer.func
    return getattr(scorer, "__qualname__", None) or type(scorer).__qualname__


@contextmanager
def _surroundings_kept() -> Iterator[None]:
    folder, dtype = os.getcwd(), torch.get_default_dtype()
    try:
        with torch.no_grad():
            yield
    finally:
        os.chdir(folder)
        torch.set_default_dtype(dtype)


def _as_tensor(given: Any, name: str, count: int) -> Tensor:
    """[count] of what a scorer returned."""
    if isinstance(given, Tensor):
        if given.shape != (count,):
            raise UserError(f"scorer {name} returned shape {list(given.shape)} for {count} responses; it must be [{count}]")
        if given.is_complex():
            raise UserError(f"scorer {name} returned complex numbers ({given.dtype}); a score is a real number")
        return given
    items = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(items, Sequence) or isinstance(items, str | bytes):
        raise UserError(f"scorer {name} must return a tensor or a list of {count} scores, not {type(given).__name__}")
    if len(items) != count:
        raise UserError(f"scorer {name} returned {len(items)} scores for {count} responses")
    return torch.tensor([_number(item, name, place) for place, item in enumerate(items)], dtype=torch.float64)


def _number(item: Any, name: str, place: int) -> float:
    if item is None:
        return float("nan")
    if isinstance(item, Tensor) and item.numel() == 1 and not item.is_complex():
        return float(item.item())
    if not isinstance(item, Real):
        raise UserError(f"scorer {name} returned {item!r:.80} ({type(item).__name__}) as score {place}; a score is a number, or None")
    try:
        return float(item)
    except OverflowError:
        return float("inf")


def _short(response: str) -> str:
    return repr(response[:80])
