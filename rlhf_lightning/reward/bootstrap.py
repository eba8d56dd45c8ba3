"""Judgements drawn with replacement: what each member of an ensemble learns from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.regression.collation import TEXT_COLUMNS

_MOST = 12
"""Draws above it come once in 10^10 times."""
# Splitmix64's constants as signed numbers (Steele, Lea and Flood 2014).
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def bootstrapped(batch: JudgementBatch, members: int, seed: int, by_text: bool = False) -> Iterator[JudgementBatch]:
    """The batch for each member, its judgements weighed by how often their prompt was drawn for that member.

    Prompts are drawn, not judgements, since what was said about one prompt belongs together (a cluster bootstrap); each comes Poisson(1)
    times (the Poisson bootstrap of Oza and Russell 2001). A prompt's draws are its tokens', the member's and the seed's: the same in
    every epoch and process.

    Args:
        by_text: texts are drawn instead (`Judgements.by_text`), of a comparison its better one.
    """
    for drawn in draws(draw_keys(batch.tokens, by_text), members, seed):
        kinds = {}
        for name, column in TEXT_COLUMNS.items():
            kind = getattr(batch, name)
            item = getattr(kind, column)
            times = drawn[item if item.dim() == 1 else item[:, 0]] if len(kind) else kind.weight
            kinds[name] = dataclasses.replace(kind, weight=kind.weight * times)
        yield dataclasses.replace(batch, **kinds)


def draws(keys: Tensor, members: int, seed: int) -> Tensor:
    """[K, U] Poisson(1) counts, a function of key [U], member and seed alone."""
    member = torch.arange(members, device=keys.device)[:, None]
    mixed = _mixed(_mixed(keys) + _mixed(member * _STEP + seed))
    uniform = (mixed & 0xFFFFFF).float() / 2**24
    below = torch.tensor([math.exp(-1) / math.factorial(j) for j in range(_MOST)], device=keys.device).cumsum(0)
    return (uniform[:, :, None] >= below).sum(-1).float()


def draw_keys(tokens: PackedTokens, by_text: bool = False) -> Tensor:
    """[U] numbers, equal for texts with equal tokens before their response, or in the encoder's context where there is one.

    Args:
        by_text: equal for texts with equal tokens of the row instead.
    """
    read = tokens if tokens.context is None or by_text else tokens.context
    lengths = read.lengths
    text = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    place = torch.arange(len(read.ids), device=lengths.device) - (lengths.cumsum(0) - lengths)[text]
    ends = lengths if read.response_start is None or by_text else read.response_start
    inside = place < ends[text]
    return torch.zeros_like(lengths).index_add(0, text[inside], _mixed(read.ids[inside] * _STEP + place[inside]))


def _mixed(number: Tensor) -> Tensor:
    """Whole numbers scattered over 64 bits; products wrap around."""
    number = (number ^ (number >> 30)) * _FIRST
    number = (number ^ (number >> 27)) * _SECOND
    return number ^ (number >> 31)
