"""Where the attention finds texts that stand in one row without padding: in buckets of like length.

Shapes: N tokens of all texts, u texts of a bucket, l its longest one's length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHORTEST_SHARE = 0.75
"""A bucket of the attention holds texts down to this share of its longest one's length."""


@dataclass(frozen=True)
class Bucket:
    """u texts of like length, padded to l, the longest one's; the mask [u, 1, 1, l] says what is a token (None: all)."""

    shape: tuple[int, int]
    mask: Tensor | None


@dataclass(frozen=True)
class BucketLayout:
    """How the attention finds its texts in the packed row.

    Attributes:
        places: the places in the row of the buckets' tokens, bucket after bucket; beyond a text's end that of its last token, which
            nothing reads.
        back: [N] where each token of the row stands in `places`; what fills the row up points anywhere.
    """

    buckets: list[Bucket]
    places: Tensor
    back: Tensor

    @classmethod
    def of(cls, lengths: Tensor, filled: int = 0) -> BucketLayout:
        sizes: list[int] = lengths.tolist()
        starts = [0, *itertools.accumulate(sizes)]
        buckets = []
        places = [torch.empty(0, dtype=torch.long)]
        back = torch.zeros(starts[-1] + filled, dtype=torch.long)
        done = 0
        for texts in group_by_length(sizes):
            size = torch.tensor([sizes[t] for t in texts])
            steps = torch.arange(sizes[texts[0]])
            inside = steps < size[:, None]
            own = torch.tensor([starts[t] for t in texts])[:, None] + torch.minimum(steps, size[:, None] - 1)
            back[own[inside]] = done + inside.flatten().nonzero().flatten()
            done += inside.numel()
            places.append(own.flatten())
            mask = None if bool(inside.all()) else inside[:, None, None, :].to(lengths.device)
            buckets.append(Bucket((len(texts), len(steps)), mask))
        return cls(buckets, torch.cat(places).to(lengths.device), back.to(lengths.device))


def group_by_length(sizes: Sequence[int]) -> list[list[int]]:
    """The texts that have tokens, longest first, in groups of like length."""
    groups: list[list[int]] = []
    for text in sorted(range(len(sizes)), key=lambda t: -sizes[t]):
        if not sizes[text]:
            break
        if groups and sizes[text] >= SHORTEST_SHARE * sizes[groups[-1][0]]:
            groups[-1].append(text)
        else:
            groups.append([text])
    return groups
