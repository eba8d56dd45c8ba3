"""Buckets of texts of similar length, in which the attention runs on packed tokens.

Shapes: N tokens of all texts, u texts of a bucket, l the longest one's length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHORTEST_SHARE = 0.75
"""A bucket takes texts down to this share of its longest one's length."""


@dataclass(frozen=True)
class Bucket:
    """u texts padded to l, the longest one's length, and their mask [u, 1, 1, l] (None: no padding)."""

    shape: tuple[int, int]
    mask: Tensor | None


@dataclass(frozen=True)
class BucketLayout:
    """Indices between the packed row and its buckets.

    Attributes:
        gather: for each token of the buckets, bucket after bucket, its index in the row; padding repeats its text's last token.
        scatter: [N] for each token of the row its index in `gather`; arbitrary for tokens that fill up the row.
    """

    buckets: list[Bucket]
    gather: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, lengths: Tensor, filled: int = 0) -> BucketLayout:
        sizes: list[int] = lengths.tolist()
        starts = [0, *itertools.accumulate(sizes)]
        buckets = []
        gather = [torch.empty(0, dtype=torch.long)]
        scatter = torch.zeros(starts[-1] + filled, dtype=torch.long)
        offset = 0
        for texts in group_by_length(sizes):
            size = torch.tensor([sizes[t] for t in texts])
            steps = torch.arange(sizes[texts[0]])
            inside = steps < size[:, None]
            indices = torch.tensor([starts[t] for t in texts])[:, None] + torch.minimum(steps, size[:, None] - 1)
            scatter[indices[inside]] = offset + inside.flatten().nonzero().flatten()
            offset += inside.numel()
            gather.append(indices.flatten())
            mask = None if bool(inside.all()) else inside[:, None, None, :].to(lengths.device)
            buckets.append(Bucket((len(texts), len(steps)), mask))
        return cls(buckets, torch.cat(gather).to(lengths.device), scatter.to(lengths.device))


def group_by_length(sizes: Sequence[int]) -> list[list[int]]:
    """Group the non-empty texts by similar length, longest first."""
    groups: list[list[int]] = []
    for text in sorted(range(len(sizes)), key=lambda t: -sizes[t]):
        if not sizes[text]:
            break
        if groups and sizes[text] >= SHORTEST_SHARE * sizes[groups[-1][0]]:
            groups[-1].append(text)
        else:
            groups.append([text])
    return groups
