"""Texts without padding: their tokens in one row, and a Hugging Face model run on it so that no text sees another.

Shapes: U texts, N tokens of all of them, L the longest, D width, H heads.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad as filled_up
from torch.nn.functional import scaled_dot_product_attention

from rlhf_lightning.model.attention_buckets import BucketLayout
from rlhf_lightning.model.forward_arguments import cache_argument
from rlhf_lightning.model.trial import READ_ERRORS, agree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPLEMENTATION = "packed_sdpa"
ROUND = 64
"""On a CPU the row is filled up to a multiple of so many tokens: oneDNN makes a kernel for each new shape and keeps it, half a MiB each."""
MOST_TRIED = 1024
"""A model of at most so many positions is tried on more tokens than it has positions."""
NOT_PACKED = ("position_bias", "softcap", "s_aux", "sliding_window")
"""Arguments of an attention that reach beyond softmax(q·k)·v over a whole text."""

BOUNDED = (
    "sliding_window", "attention_chunk_size", "attn_temperature_tuning", "attention_window", "window_size", "local_attention",
    "index_topk", "indexer_budget", "alibi", "attn_logit_softcapping",
)  # fmt: skip
"""Names in configs of what bounds an attention, or scales it with positions."""


@dataclass(frozen=True)
class PackedTokens:
    """U texts as ids [N], one text after the other, and their lengths [U].

    Attributes:
        response_start: [U] the place in each text's row where its response begins; None where nobody said.
        types: [N] token types of an encoder that tells prompt and response apart by them.
        context: what an encoder-decoder's encoder reads, U texts; `ids` are then its decoder's.
    """

    ids: Tensor
    lengths: Tensor
    response_start: Tensor | None = None
    types: Tensor | None = None
    context: PackedTokens | None = None

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[int]],
        response_start: Sequence[int] | None = None,
        types: Sequence[Sequence[int]] | None = None,
        context: PackedTokens | None = None,
    ) -> PackedTokens:
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        start = None if response_start is None else torch.tensor(response_start, dtype=torch.long)
        return cls(_joined(rows), lengths, start, None if types is None else _joined(types), context)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str) -> PackedTokens:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in own.items()}
        return PackedTokens(**moved)

    def select(self, rows: Tensor) -> tuple[PackedTokens, Tensor]:
        """The texts of these rows, and the places [n] of their tokens among those of all."""
        lengths = self.lengths[rows]
        starts = (self.lengths.cumsum(0) - self.lengths)[rows]
        steps = torch.arange(int(lengths.sum()), device=rows.device) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        places = starts.repeat_interleave(lengths) + steps
        start = None if self.response_start is None else self.response_start[rows]
        types = None if self.types is None else self.types[places]
        context = None if self.context is None else self.context.select(rows)[0]
        return PackedTokens(self.ids[places], lengths, start, types, context), places

    def start(self, length: int) -> PackedTokens:
        """The first tokens of a single text."""
        types = None if self.types is None else self.types[:length]
        return PackedTokens(self.ids[:length], self.lengths.clamp(max=length), None, types, self.context)

    def to_padded(self, pad: int = 0) -> tuple[Tensor, Tensor]:
        """[U, L] right-padded ids and mask, as integers."""
        ids, mask = unpack(self.ids, self.lengths, pad)
        return ids, mask.long()


def _joined(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor(list(itertools.chain.from_iterable(rows)), dtype=torch.long)


def unpack(values: Tensor, lengths: Tensor, fill: float = 0) -> tuple[Tensor, Tensor]:
    """[N, ...] values of packed tokens as [U, L, ...], right-padded with `fill`, and the mask [U, L]."""
    longest = int(lengths.max()) if len(lengths) else 0
    mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
    padded = values.new_full((*mask.shape, *values.shape[1:]), fill)
    return padded.index_put((mask,), values), mask


class NotPackedError(Exception):
    """The model's attention can't be run on packed tokens."""


def packed_hidden(trunk: PreTrainedModel, tokens: PackedTokens, cache: Any = None) -> Tensor:
    """The vectors [N, D] of packed tokens, each text read by itself: linear layers see N tokens, the attention runs by buckets.

    Positions restart with each text. Equal to running each text alone but for rounding. Only for a trunk that `supports_packing`.

    Args:
        cache: a transformers Cache that takes the keys and values, [1, H, N or more, D]; None keeps none.
    """
    return _packed_hidden(trunk, tokens, _first_position[trunk], cache)


def supports_packing(trunk: PreTrainedModel) -> bool:
    """Whether `packed_hidden` gives what the trunk gives for padded texts: tried once, on random tokens, and remembered.

    A trunk that does is left with an attention that differs from its own (sdpa) on packed tokens only. No: models whose attention
    isn't called through transformers' AttentionInterface, has a position bias (ALiBi, T5), a sliding window, soft-capping or sinks,
    whose layers carry a state from token to token, and those loaded with another attn_implementation than sdpa.
    """
    if trunk not in _first_position:
        _first_position[trunk] = _tried(trunk)
    return _first_position[trunk] is not None


_first_position: weakref.WeakKeyDictionary[nn.Module, int | None] = weakref.WeakKeyDictionary()
"""By trunk: the number of a text's first position, or None where packing doesn't work."""


def _packed_hidden(trunk: PreTrainedModel, tokens: PackedTokens, first_position: int | None, cache: Any = None) -> Tensor:
    if first_position is None:
        raise NotPackedError(f"{type(trunk).__name__} doesn't run on packed tokens")
    lengths, count = tokens.lengths, len(tokens.ids)
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    filled = -count % ROUND if lengths.device.type == "cpu" else 0
    positions = filled_up(torch.arange(count, device=lengths.device) - starts, (0, filled)) + first_position
    ids = filled_up(tokens.ids, (0, filled))
    # All of the mask is 1: without one, transformers would take the restarting positions as a reason to build an N x N mask.
    hidden: Tensor = trunk(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        position_ids=positions[None],
        packed_layout=BucketLayout.of(lengths, filled),
        **({} if tokens.types is None else {"token_type_ids": filled_up(tokens.types, (0, filled))[None]}),
        **(_without_cache(trunk) if cache is None else {cache_argument(trunk) or "": cache, "use_cache": True}),
    ).last_hidden_state
    return hidden[0, :count]


def _without_cache(trunk: PreTrainedModel) -> dict[str, Any]:
    """Keys and values of a text are never read again; encoders don't know the word."""
    return {"use_cache": False} if getattr(trunk.config, "use_cache", None) is not None else {}


def _tried(trunk: PreTrainedModel) -> int | None:
    """The number of a text's first position, once packed and padded agree on random tokens with the trunk's attention switched."""
    from transformers.utils import logging

    own = trunk.config._attn_implementation
    if own not in ("sdpa", IMPLEMENTATION) or getattr(trunk.config, "is_encoder_decoder", False) or _reaches_beyond_trial(trunk):
        return None
    _register()
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # that an attention can't be switched is an answer here
    training = {module: module.training for module in trunk.modules()}
    trunk.eval()
    try:
        trunk.set_attn_implementation("sdpa")
        tokens, padded = _sample(trunk)
        trunk.set_attn_implementation(IMPLEMENTATION)
        # RoBERTa counts its positions from the padding's id on.
        for first in (0, 1 + int(trunk.config.pad_token_id or 0)):
            if trunk.config._attn_implementation == IMPLEMENTATION and _agree(trunk, tokens, first, padded):
                return first
        trunk.set_attn_implementation("sdpa")
        return None
    finally:
        logging.set_verbosity(said)
        for module, was in training.items():
            module.training = was


def _reaches_beyond_trial(trunk: PreTrainedModel) -> bool:
    """Whether the config names layers that carry a state, or attention that is bounded by or scaled with positions: a trial on a few
    tokens shows neither."""
    config = trunk.config.get_text_config()
    kinds = {str(kind) for kind in getattr(config, "layer_types", None) or ()}
    bounded = [name for name in BOUNDED if _bounds(config, name)]
    if not getattr(config, "use_sliding_window", True):
        bounded = [name for name in bounded if name != "sliding_window"]
    return bool(bounded) or not kinds <= {"full_attention", "attention"} or bool(getattr(trunk, "_is_stateful", False))


def _bounds(config: Any, name: str) -> bool:
    """Whether a config bounds all layers, or some of them."""
    layers = getattr(config, "per_layer_config", None)
    return any(getattr(layer, name, None) for layer in layers) if layers else bool(getattr(config, name, None))


@torch.no_grad()
def _sample(trunk: PreTrainedModel) -> tuple[PackedTokens, Tensor]:
    """Random texts, and the trunk's own vectors [N, D] for them, unpadded."""
    config = trunk.config.get_text_config()
    pad, vocabulary = int(config.pad_token_id or 0), int(config.vocab_size)
    positions = int(getattr(config, "max_position_embeddings", None) or MOST_TRIED + 1)
    longest = max(1, min(16, positions - 1 - pad))
    # Tables of positions are as long as one text may be; the row of all texts is longer.
    enough = positions if positions <= MOST_TRIED else 4 * longest
    sizes = [1 + 5 * i % longest for i in range(8)]
    sizes += [longest] * (1 + max(0, enough - sum(sizes)) // longest)
    ids = torch.randint(vocabulary, (sum(sizes),), generator=torch.Generator().manual_seed(0))
    tokens = PackedTokens(torch.where(ids == pad, (ids + 1) % vocabulary, ids), torch.tensor(sizes))
    tokens = tokens.to(trunk.device)
    expected, places = [], []
    with torch.autocast(trunk.device.type, enabled=False):
        for size in dict.fromkeys(sizes):  # unpadded, by equal length
            part, own = tokens.select((tokens.lengths == size).nonzero().squeeze(1))
            expected.append(padded_hidden(trunk, part)[0].flatten(0, 1))
            places.append(own)
    return tokens, torch.cat(expected)[torch.cat(places).argsort()]


@torch.no_grad()
def _agree(trunk: PreTrainedModel, tokens: PackedTokens, first_position: int, expected: Tensor) -> bool:
    try:
        with torch.autocast(trunk.device.type, enabled=False):
            found = _packed_hidden(trunk, tokens, first_position)
    except (NotPackedError, *READ_ERRORS):
        return False
    return agree(found, expected)


def padded_hidden(trunk: PreTrainedModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """The vectors [U, L, D] of the texts, right-padded, and the mask [U, L], by the trunk's own means."""
    read = padded_inputs(tokens, int(getattr(trunk.config, "pad_token_id", None) or 0))
    return trunk(**read, **_without_cache(trunk)).last_hidden_state, read["attention_mask"]


def padded_inputs(tokens: PackedTokens, pad: int) -> dict[str, Tensor]:
    """What a transformers model takes, [U, L] each, right-padded: ids, mask, and token types where there are some."""
    ids, mask = tokens.to_padded(pad)
    types = {} if tokens.types is None else {"token_type_ids": unpack(tokens.types, tokens.lengths)[0]}
    return {"input_ids": ids, "attention_mask": mask, **types}


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)


def _mask(*args: Any, local_size: int | None = None, allow_is_causal_skip: bool = True, **rest: Any) -> Tensor | None:
    """sdpa's mask; a window is always written out, so that `_attention` learns of it however few tokens the trial has."""
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
    """The attention of transformers' AttentionInterface: [1, H, N, D] queries, keys and values (which may have fewer heads), and a
    layout; sdpa's own where there is none."""
    dtype = query.dtype
    if query.device.type == "cpu":  # whose kernels are slower in bfloat16 than in float32, three times in the backward pass
        query, key, value = (x.to(torch.promote_types(dtype, torch.float32)) for x in (query, key, value))
    if packed_layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        with torch.autocast(query.device.type, enabled=False):
            own, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, is_causal, **rest)
        return own.to(dtype), None
    refused = [name for name in NOT_PACKED if rest.get(name) is not None]
    if attention_mask is not None or refused or not len(query) == 1 or not query.shape[2] == key.shape[2] == len(packed_layout.back):
        raise NotPackedError(f"an attention with a mask of its own or {refused} can't be packed")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    shared = query.shape[1] // key.shape[1]
    rows = [query[0].transpose(0, 1), *(x[0].transpose(0, 1).repeat_interleave(shared, 1) for x in (key, value))]
    rows = [row.index_select(0, packed_layout.places) for row in rows]
    sizes = [math.prod(bucket.shape) for bucket in packed_layout.buckets]
    done = []
    for bucket, *own in zip(packed_layout.buckets, *(row.split(sizes) for row in rows), strict=True):
        q, k, v = (x.unflatten(0, bucket.shape).transpose(1, 2) for x in own)
        # A causal text never sees what stands behind its end, so that only the others need a mask.
        mask = None if causal else bucket.mask
        with torch.autocast(q.device.type, enabled=False):
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scaling)
        done.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(done).index_select(0, packed_layout.back)[None].to(dtype), None
