"""Bootstrap samples of judgements, one per member of an ensemble."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.reward.regression.collation import TEXT_COLUMNS

_MAX_COUNT = 12
"""Larger counts have a probability of 10^-10."""
# Splitmix64's constants as signed numbers (Steele, Lea and Flood 2014).
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def bootstrap_batches(batch: JudgementBatch, members: int, seed: int, by_text: bool = False) -> Iterator[JudgementBatch]:
    """The batch for each member, its judgements weighted by the count of their prompt in its sample.

    Prompts are sampled, not judgements, since judgements of one prompt are correlated (a cluster bootstrap), each Poisson(1) times (the
    Poisson bootstrap of Oza and Russell 2001). A prompt's count depends on its tokens, the member and the seed: it is the same in every
    epoch and process.

    Args:
        by_text: sample texts instead (`Judgements.by_text`), of a comparison the better one.
    """
    for counts in poisson_counts(text_keys(batch.tokens, by_text), members, seed):
        kinds = {}
        for name, column in TEXT_COLUMNS.items():
            kind = getattr(batch, name)
            item = getattr(kind, column)
            times = counts[item if item.dim() == 1 else item[:, 0]] if len(kind) else kind.weight
            kinds[name] = dataclasses.replace(kind, weight=kind.weight * times)
        yield dataclasses.replace(batch, **kinds)


def poisson_counts(keys: Tensor, members: int, seed: int) -> Tensor:
    """[K, U] Poisson(1) counts, a function of key [U], member and seed."""
    member = torch.arange(members, device=keys.device)[:, None]
    mixed = _hash(_hash(keys) + _hash(member * _STEP + seed))
    uniform = (mixed & 0xFFFFFF).float() / 2**24
    below = torch.tensor([math.exp(-1) / math.factorial(j) for j in range(_MAX_COUNT)], device=keys.device).cumsum(0)
    return (uniform[:, :, None] >= below).sum(-1).float()


def text_keys(tokens: PackedTokens, by_text: bool = False) -> Tensor:
    """[U] hashes of the tokens before the response, or of the encoder's context if there is one.

    Args:
        by_text: hashes of all tokens of the row instead.
    """
    read = tokens if tokens.context is None or by_text else tokens.context
    lengths = read.lengths
    text = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    position = torch.arange(len(read.ids), device=lengths.device) - (lengths.cumsum(0) - lengths)[text]
    ends = lengths if read.response_start is None or by_text else read.response_start
    inside = position < ends[text]
    return torch.zeros_like(lengths).index_add(0, text[inside], _hash(read.ids[inside] * _STEP + position[inside]))


def _hash(number: Tensor) -> Tensor:
    """Scatter integers over 64 bits (splitmix64); products wrap around."""
    number = (number ^ (number >> 30)) * _FIRST
    number = (number ^ (number >> 27)) * _SECOND
    return number ^ (number >> 31)
