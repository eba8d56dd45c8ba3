"""Fake tensors with shapes, dtypes and lifetimes but no numbers, and the memory that they would take.

torch's FakeTensorMode gives every tensor a shape and no memory; `MemoryTracker` sees each one come and go, through the backward pass too.
The activations of any architecture are counted that way, not computed from a formula.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlhf_lightning.model.packed_attention import group_by_length
from rlhf_lightning.model.packing import ROUND

IMPLEMENTATION = "fake"
HEAP_BLOCK = 2**25
"""Bytes of the largest block that glibc keeps in its heap when it is freed; larger ones are returned to the system at once."""
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Texts:
    """The sizes of texts.

    Attributes:
        lengths: tokens of each. predicted: those of them at which the output layer is computed.
    """

    lengths: tuple[int, ...]
    predicted: tuple[int, ...]

    @classmethod
    def of(cls, contexts: Sequence[int], responses: Sequence[int]) -> Texts:
        """Texts of contexts and predicted responses with these numbers of tokens."""
        return cls(tuple(a + b for a, b in zip(contexts, responses, strict=True)), tuple(responses))

    @classmethod
    def of_packed(cls, tokens: Any) -> Texts:
        """The sizes of PackedTokens; without response_start all tokens but the first are predicted."""
        lengths = tokens.lengths.tolist()
        starts = [0] * len(lengths) if tokens.response_start is None else tokens.response_start.tolist()
        return cls(tuple(lengths), tuple(max(0, length - max(1, start)) for length, start in zip(lengths, starts, strict=True)))

    @classmethod
    def concatenate(cls, batches: Iterable[Texts]) -> Texts:
        """All texts of batches."""
        every = list(batches)
        return cls(tuple(chain.from_iterable(t.lengths for t in every)), tuple(chain.from_iterable(t.predicted for t in every)))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def predicted_tokens(self) -> int:
        return sum(self.predicted)

    def part(self, parts: int) -> Texts:
        """The largest of `parts` equal parts; texts are dealt in turn, so that long ones are spread."""
        return Texts(self.lengths[::parts], self.predicted[::parts])

    def first(self, count: int) -> Texts:
        return Texts(self.lengths[:count], self.predicted[:count])

    def longest(self, count: int) -> Texts:
        """The `count` longest texts."""
        order = sorted(range(len(self)), key=lambda i: -self.lengths[i])[:count]
        return Texts(tuple(self.lengths[i] for i in order), tuple(self.predicted[i] for i in order))

    @functools.cached_property
    def bucketed_tokens(self) -> int:
        """Tokens of the attention's buckets (model.packed_attention)."""
        return sum(len(group) * self.lengths[group[0]] for group in group_by_length(self.lengths))


@dataclass(frozen=True)
class PackedShape:
    """Shape of a packed row for the fake attention: tokens of its buckets, and float32 as on a CPU."""

    bucketed_tokens: int
    float32: bool


# torch.distributed._tools.MemTracker counts the same bytes by module, but not the part in small blocks; it is private and 900 lines.
class MemoryTracker(TorchDispatchMode):
    """Counts the bytes of all living tensors made while it is on: now, and at the peak.

    Attributes:
        heap: the part of the peak in blocks of at most HEAP_BLOCK.

    Args:
        uncounted: existing tensors, such as weights.
    """

    def __init__(self, uncounted: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = self.heap = self._small = 0
        self._alive: dict[int, Any] = {}
        for tensor in uncounted:
            self._add(tensor, counts=False)

    def reset_peak(self) -> None:
        """Reset the peak to the present."""
        self.peak, self.heap = self.now, self._small

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return out

    def _add(self, tensor: Tensor, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        size = storage.nbytes() if counts else 0
        small = size if size <= HEAP_BLOCK else 0
        self.now += size
        self._small += small
        if self.now > self.peak:
            self.peak, self.heap = self.now, self._small

        def release(_: Any) -> None:
            self.now -= size
            self._small -= small
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, release)


def fake_mode() -> Any:
    """The mode of fake tensors, one for all models; make them on the device "meta", then `to_fake`."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def to_fake(mode: Any, model: M) -> M:
    """Replace a model's tensors on "meta" by fake ones on the CPU, in place; tied ones stay tied."""
    replaced: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in replaced:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            replaced[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        return replaced[id(tensor)]

    with mode:
        for module in model.modules():
            namespaces: list[dict[str, Any]] = [cast(Any, module._parameters), cast(Any, module._buffers), module.__dict__]
            for namespace in namespaces:
                for name, tensor in namespace.items():
                    if isinstance(tensor, Tensor) and tensor.is_meta:
                        namespace[name] = fake(tensor)
    return model


@contextmanager
def track_memory(mode: Any, model: nn.Module, precision: str) -> Iterator[MemoryTracker]:
    """Count the memory of a model's code beyond its weights, at a setting of trainer.precision."""
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    tracker = MemoryTracker([*model.parameters(), *model.buffers()])
    with mode, tracker, torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        yield tracker


def prepare_attention(trunk: Any) -> bool:
    """Give a trunk a fake attention; returns True if it runs on packed rows, as `supports_packing`.

    A trunk that doesn't call its attention through transformers' AttentionInterface (T5) keeps its own, and is padded.
    """
    config = trunk.config
    is_plain = config._attn_implementation in ("sdpa", IMPLEMENTATION) and not getattr(config, "is_encoder_decoder", False)
    _register()
    try:
        trunk.set_attn_implementation(IMPLEMENTATION)
    except (ValueError, AttributeError, ImportError):
        return False
    if config._attn_implementation != IMPLEMENTATION:
        return False
    windows = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return is_plain and not windows and not getattr(config, "attn_logit_softcapping", None) and not getattr(config, "alibi", False)


def row_hidden(trunk: Any, texts: Texts, packs: bool, host: bool) -> Tensor:
    """Hidden states [N, D] of texts as of `text_vectors`: packed, or padded and selected.

    Args:
        host: on a CPU, where rows are rounded up and attention computes in float32.
    """
    count, options = texts.tokens, {} if getattr(trunk.config, "use_cache", None) is None else {"use_cache": False}
    if packs:
        ids = torch.zeros(1, count + (-count % ROUND if host else 0), dtype=torch.long)
        shape = PackedShape(texts.bucketed_tokens, host)
        out = trunk(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=ids, packed_layout=shape, **options)
        return cast(Tensor, out.last_hidden_state[0, :count])
    ids = torch.zeros(len(texts), max(texts.lengths), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **options}
    if getattr(trunk.config, "is_encoder_decoder", False):
        inputs |= {"decoder_input_ids": ids}
    padded = trunk(**inputs).last_hidden_state
    return cast(Tensor, padded.flatten(0, 1).index_select(0, torch.zeros(count, dtype=torch.long)))


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, cast(Callable[..., Any], _no_mask))


def _no_mask(*args: Any, **rest: Any) -> None:
    """No mask: it is a byte per pair of tokens of a text, little compared with the activations."""
    return


class _FusedAttention(torch.autograd.Function):
    """Memory of a fused attention, which saves inputs, output, and one number per row and head."""

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
    """The shapes of model.packing's attention, or of sdpa's without a layout."""
    dtype = query.dtype
    if packed_layout is not None and packed_layout.float32:
        query, key, value = (x.to(torch.promote_types(dtype, torch.float32)) for x in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if packed_layout is None:
        if groups > 1:
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        return _FusedAttention.apply(query, key, value).transpose(1, 2).contiguous().to(dtype), None
    rows = [query[0].transpose(0, 1), *(x[0].transpose(0, 1).repeat_interleave(groups, 1) for x in (key, value))]
    bucketed = torch.zeros(packed_layout.bucketed_tokens, dtype=torch.long)
    rows = [row.index_select(0, bucketed) for row in rows]
    out = torch.cat([_FusedAttention.apply(*rows)])
    return out.index_select(0, torch.zeros(query.shape[2], dtype=torch.long))[None].to(dtype), None
