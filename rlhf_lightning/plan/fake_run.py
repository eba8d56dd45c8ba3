"""A training's own code run without numbers: tensors have shapes, dtypes and lifetimes, and what they would take is counted.

torch's FakeTensorMode gives every tensor a shape and no memory; `MemoryTracker` sees each one come and go, through the backward pass too.
What a model of any architecture saves for its gradient is counted that way, not computed from a formula.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlhf_lightning.model.attention_buckets import group_by_length
from rlhf_lightning.model.packing import ROUND

IMPLEMENTATION = "rehearsed"
HEAP_BLOCK = 2**25
"""glibc keeps freed blocks of up to 32 MiB for later, unless it is told otherwise; larger ones go back to the system at once."""
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Texts:
    """Texts by their sizes alone.

    Attributes:
        lengths: tokens of each. predicted: those of them that the output layer is run for.
    """

    lengths: tuple[int, ...]
    predicted: tuple[int, ...]

    @classmethod
    def of(cls, before: Sequence[int], after: Sequence[int]) -> Texts:
        """Texts with so many tokens before what is predicted, and so many predicted ones."""
        return cls(tuple(a + b for a, b in zip(before, after, strict=True)), tuple(after))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def answers(self) -> int:
        return sum(self.predicted)

    def part(self, parts: int) -> Texts:
        """The largest of so many equal parts of them; texts are taken in turn, so that long ones are shared out."""
        return Texts(self.lengths[::parts], self.predicted[::parts])

    def first(self, count: int) -> Texts:
        return Texts(self.lengths[:count], self.predicted[:count])

    @functools.cached_property
    def bucketed_tokens(self) -> int:
        """Tokens of the attention's buckets (backbone.layout)."""
        return sum(len(group) * self.lengths[group[0]] for group in group_by_length(self.lengths))


@dataclass(frozen=True)
class Places:
    """What the rehearsed attention must know of a row: tokens of its buckets, and whether it computes in float32 as a CPU's does."""

    bucketed: int
    single: bool


class MemoryTracker(TorchDispatchMode):
    """Counts the bytes of all tensors that come to be while it is on, until they go: `now`, and the most at a time, `peak`.

    `heap` is the part of the peak in blocks of at most HEAP_BLOCK.

    Args:
        known: what is there already and isn't counted: weights.
    """

    def __init__(self, known: Any = ()) -> None:
        super().__init__()
        self.now = self.peak = self.heap = self._small = 0
        self._alive: dict[int, Any] = {}
        for tensor in known:
            self._see(tensor, counted=False)

    def restart(self) -> None:
        """Let the peak be looked for from here on."""
        self.peak, self.heap = self.now, self._small

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor, counted: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        size = storage.nbytes() if counted else 0
        small = size if size <= HEAP_BLOCK else 0
        self.now += size
        self._small += small
        if self.now > self.peak:
            self.peak, self.heap = self.now, self._small

        def gone(_: Any) -> None:
            self.now -= size
            self._small -= small
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, gone)


def fake_mode() -> Any:
    """The mode in which tensors have no memory; one for all models of a plan. Models are made on the device "meta" and then `to_fake`."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def to_fake(mode: Any, model: M) -> M:
    """Let a model that was made on the device "meta" have weights that look like a CPU's, in place; tied ones stay tied."""
    known: dict[int, Tensor] = {}

    def like(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            known[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        return known[id(tensor)]

    with mode:
        for module in model.modules():
            places: list[dict[str, Any]] = [cast(Any, module._parameters), cast(Any, module._buffers), module.__dict__]
            for place in places:
                for name, tensor in place.items():
                    if isinstance(tensor, Tensor) and tensor.is_meta:
                        place[name] = like(tensor)
    return model


@contextmanager
def counted(mode: Any, model: nn.Module, precision: str) -> Iterator[MemoryTracker]:
    """Inside, what a model's code takes beyond its weights is counted, under a setting of trainer.precision."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    live = MemoryTracker([*model.parameters(), *model.buffers()])
    with mode, live, torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        yield live


def rehearsable(trunk: Any) -> bool:
    """Let a trunk's attention be counted; returns whether it runs on packed rows, as `supports_packing` would find by trying.

    A trunk whose attention isn't called through transformers' AttentionInterface (T5) keeps its own, and is padded.
    """
    config = trunk.config
    plain = config._attn_implementation in ("sdpa", IMPLEMENTATION) and not getattr(config, "is_encoder_decoder", False)
    _register()
    try:
        trunk.set_attn_implementation(IMPLEMENTATION)
    except (ValueError, AttributeError, ImportError):
        return False
    if config._attn_implementation != IMPLEMENTATION:
        return False
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return plain and not windows and not getattr(config, "attn_logit_softcapping", None) and not getattr(config, "alibi", False)


def row_hidden(trunk: Any, texts: Texts, packs: bool, host: bool) -> Tensor:
    """The vectors [N, D] of texts, as `text_vectors` and `token_vectors` make them: packed, or padded and picked.

    Args:
        host: on a CPU, which fills rows up and takes the attention in float32.
    """
    count, own = texts.tokens, _no_cache(trunk)
    if packs:
        ids = torch.zeros(1, count + (-count % ROUND if host else 0), dtype=torch.long)
        places = Places(texts.bucketed_tokens, host)
        out = trunk(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=ids, packed_layout=places, **own)
        return cast(Tensor, out.last_hidden_state[0, :count])
    ids = torch.zeros(len(texts), max(texts.lengths), dtype=torch.long)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **own}
    if getattr(trunk.config, "is_encoder_decoder", False):
        given |= {"decoder_input_ids": ids}
    padded = trunk(**given).last_hidden_state
    return cast(Tensor, padded.flatten(0, 1).index_select(0, torch.zeros(count, dtype=torch.long)))


def _no_cache(trunk: Any) -> dict[str, Any]:
    return {"use_cache": False} if getattr(trunk.config, "use_cache", None) is not None else {}


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, cast(Callable[..., Any], _no_mask))


def _no_mask(*args: Any, **rest: Any) -> None:
    """A mask is a byte for each pair of tokens of a text, little beside what the layers keep."""
    return


class _Fused(torch.autograd.Function):
    """What a fused attention (flash) takes: its inputs, its output, and one number a row and head are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, packed_layout: Any = None, **rest: Any
) -> tuple[Tensor, None]:
    """The shapes of backbone.packing's attention, or of sdpa's where there is no layout."""
    dtype = query.dtype
    if packed_layout is not None and packed_layout.single:
        query, key, value = (x.to(torch.promote_types(dtype, torch.float32)) for x in (query, key, value))
    shared = query.shape[1] // key.shape[1]
    if packed_layout is None:
        if shared > 1:
            key, value = (x.repeat_interleave(shared, 1) for x in (key, value))
        return _Fused.apply(query, key, value).transpose(1, 2).contiguous().to(dtype), None
    rows = [query[0].transpose(0, 1), *(x[0].transpose(0, 1).repeat_interleave(shared, 1) for x in (key, value))]
    bucketed = torch.zeros(packed_layout.bucketed, dtype=torch.long)
    rows = [row.index_select(0, bucketed) for row in rows]
    out = torch.cat([_Fused.apply(*rows)])
    return out.index_select(0, torch.zeros(query.shape[2], dtype=torch.long))[None].to(dtype), None
