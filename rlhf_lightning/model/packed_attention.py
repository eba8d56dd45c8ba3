"""Attention over packed tokens, registered with transformers: each text attends to itself only.

Shapes: N tokens of all texts, D width, H heads.

Shapes: N tokens of all texts, u texts of a bucket, l the longest one's length.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

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


IMPLEMENTATION = "packed_sdpa"
NOT_PACKED = ("position_bias", "softcap", "s_aux", "sliding_window")
"""Arguments of an attention beyond softmax(q·k)·v over a text."""


class NotPackedError(Exception):
    """The model's attention can't be run on packed tokens."""


@functools.cache
def register_packed_attention() -> None:
    """Register IMPLEMENTATION with transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)


def _mask(*args: Any, local_size: int | None = None, allow_is_causal_skip: bool = True, **rest: Any) -> Tensor | None:
    """sdpa's mask, with every window materialized, so that `_attention` sees it in a trial of any size."""
    from transformers.masking_utils import sdpa_mask

    skip = allow_is_causal_skip and local_size is None
    if local_size is not None:
        rest["allow_is_bidirectional_skip"] = False
    mask: Tensor | None = sdpa_mask(*args, local_size=local_size, allow_is_causal_skip=skip, **rest)
    return mask


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    packed_layout: BucketLayout | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attend within each text; without a layout this is sdpa.

    Args:
        query, key, value: [1, H, N, D]; key and value may have fewer heads.

    Raises:
        NotPackedError: a mask, or an argument of NOT_PACKED.
    """
    dtype = query.dtype
    if query.device.type == "cpu":  # bfloat16 kernels are slower than float32 ones, three times in the backward pass
        query, key, value = (x.to(torch.promote_types(dtype, torch.float32)) for x in (query, key, value))
    if packed_layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        with torch.autocast(query.device.type, enabled=False):
            output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, is_causal, **rest)
        return output.to(dtype), None
    refused = [name for name in NOT_PACKED if rest.get(name) is not None]
    if attention_mask is not None or refused or not len(query) == 1 or not query.shape[2] == key.shape[2] == len(packed_layout.scatter):
        raise NotPackedError(f"an attention with its own mask or {refused} can't be packed")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    output = _attend_by_buckets((query, key, value), packed_layout, causal, dropout, scaling)
    return output[None].to(dtype), None


def _attend_by_buckets(
    tensors: tuple[Tensor, Tensor, Tensor], layout: BucketLayout, causal: bool, dropout: float, scaling: float | None
) -> Tensor:
    """The attention's output [N, H, D] for [1, H, N, D] queries, keys and values."""
    query, key, value = tensors
    # Repeat the heads that queries share, and put the tokens into the buckets' order.
    shared = query.shape[1] // key.shape[1]
    rows = [query[0].transpose(0, 1), *(x[0].transpose(0, 1).repeat_interleave(shared, 1) for x in (key, value))]
    rows = [row.index_select(0, layout.gather) for row in rows]
    sizes = [math.prod(bucket.shape) for bucket in layout.buckets]
    outputs = []
    for bucket, *parts in zip(layout.buckets, *(row.split(sizes) for row in rows), strict=True):
        q, k, v = (x.unflatten(0, bucket.shape).transpose(1, 2) for x in parts)
        mask = None if causal else bucket.mask  # causal texts never see their padding
        with torch.autocast(q.device.type, enabled=False):
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, layout.scatter)
