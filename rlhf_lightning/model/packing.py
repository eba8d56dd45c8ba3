"""Texts packed into one row without padding, and Hugging Face models run on it.

Shapes: U texts, N tokens of all of them, L the longest, D width, H heads.

transformers renamed its cache argument in 5.24 (`past_key_values` and `cache_params` became `cache`) and drops the old names in 5.40.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlhf_lightning.model.packed_attention import IMPLEMENTATION, BucketLayout, NotPackedError, register_packed_attention
from rlhf_lightning.model.trial import READ_ERRORS, agree, random_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params", "state")
"""Names of the argument and output with keys, values or states, newest first."""


def accepted_arguments(module: nn.Module, **arguments: Any) -> dict[str, Any]:
    """The arguments that the module's forward names as parameters."""
    names = _parameters_of_forward(cast(Any, type(module)))
    return {name: value for name, value in arguments.items() if name in names}


def cache_argument(module: nn.Module) -> str | None:
    """The name of the cache parameter of the module's forward; None if it has none."""
    names = _parameters_of_forward(cast(Any, type(module)))
    return next((name for name in CACHE_ARGUMENTS if name in names), None)


@functools.cache
def _parameters_of_forward(model_class: Any) -> frozenset[str]:
    """The named parameters of a class's forward, without `*args` and `**kwargs`."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return frozenset(name for name, p in inspect.signature(model_class.forward).parameters.items() if p.kind not in variadic)


ROUND = 64
"""On a CPU the row is filled up to a multiple of this: oneDNN keeps a kernel of half a MiB for each new shape."""
MAX_TRIAL_POSITIONS = 1024
"""A model with at most this many positions is tried on more tokens than it has positions."""
BOUNDED = (
    "sliding_window", "attention_chunk_size", "attn_temperature_tuning", "attention_window", "window_size", "local_attention",
    "index_topk", "indexer_budget", "alibi", "attn_logit_softcapping",
)  # fmt: skip
"""Config keys that bound an attention, or scale it with positions."""


@dataclass(frozen=True)
class PackedTokens:
    """U texts as ids [N], one text after the other, and their lengths [U].

    Attributes:
        response_start: [U] index in each text of its response's first token; None if unknown.
        types: [N] token types, for an encoder that tells prompt and response apart by them.
        context: the U texts that an encoder-decoder's encoder reads; `ids` are then its decoder's.
        response_mask: [N] True at the tokens of responses, from response_start on, of which a conversation has several; None if a
            response extends to its text's end.
    """

    ids: Tensor
    lengths: Tensor
    response_start: Tensor | None = None
    types: Tensor | None = None
    context: PackedTokens | None = None
    response_mask: Tensor | None = None

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[int]],
        response_start: Sequence[int] | None = None,
        types: Sequence[Sequence[int]] | None = None,
        context: PackedTokens | None = None,
        response_mask: Sequence[Sequence[bool]] | None = None,
    ) -> PackedTokens:
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        start = None if response_start is None else torch.tensor(response_start, dtype=torch.long)
        mask = None if response_mask is None else _concat(response_mask).bool()
        return cls(_concat(rows), lengths, start, None if types is None else _concat(types), context, mask)

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str) -> PackedTokens:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in values.items()}
        return PackedTokens(**moved)

    def select(self, rows: Tensor) -> tuple[PackedTokens, Tensor]:
        """The texts of these rows, and the indices [n] of their tokens in `ids`."""
        lengths = self.lengths[rows]
        starts = (self.lengths.cumsum(0) - self.lengths)[rows]
        steps = torch.arange(int(lengths.sum()), device=rows.device) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        indices = starts.repeat_interleave(lengths) + steps
        start = None if self.response_start is None else self.response_start[rows]
        types = None if self.types is None else self.types[indices]
        context = None if self.context is None else self.context.select(rows)[0]
        mask = None if self.response_mask is None else self.response_mask[indices]
        return PackedTokens(self.ids[indices], lengths, start, types, context, mask), indices

    def truncate(self, length: int) -> PackedTokens:
        """The first tokens of a single text."""
        types = None if self.types is None else self.types[:length]
        return PackedTokens(self.ids[:length], self.lengths.clamp(max=length), None, types, self.context)

    def to_padded(self, pad: int = 0) -> tuple[Tensor, Tensor]:
        """[U, L] right-padded ids and mask, as integers."""
        ids, mask = unpack(self.ids, self.lengths, pad)
        return ids, mask.long()


def _concat(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor(list(itertools.chain.from_iterable(rows)), dtype=torch.long)


def unpack(values: Tensor, lengths: Tensor, fill: float = 0) -> tuple[Tensor, Tensor]:
    """[N, ...] values of packed tokens as [U, L, ...], right-padded with `fill`, and the mask [U, L]."""
    longest = int(lengths.max()) if len(lengths) else 0
    mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
    padded = values.new_full((*mask.shape, *values.shape[1:]), fill)
    return padded.index_put((mask,), values), mask


def packed_hidden(trunk: PreTrainedModel, tokens: PackedTokens, cache: Any = None) -> Tensor:
    """The vectors [N, D] of packed tokens: linear layers see N tokens, the attention runs by buckets.

    Positions restart with each text. Equal to running each text alone but for rounding. Only for a trunk that `supports_packing`.

    Args:
        cache: a transformers Cache that takes the keys and values, [1, H, N or more, D]; None keeps none.
    """
    return _packed_hidden(trunk, tokens, _first_position[trunk], cache)


def supports_packing(trunk: PreTrainedModel) -> bool:
    """True if `packed_hidden` equals the trunk's result for padded texts: tried once, then cached.

    Such a trunk keeps an attention that differs from sdpa on packed tokens only. False for models whose attention isn't called
    through transformers' AttentionInterface or has a position bias (ALiBi, T5), a sliding window, soft-capping or sinks; for models
    with a recurrent state, and for those loaded with another attn_implementation than sdpa.
    """
    if trunk not in _first_position:
        _first_position[trunk] = _find_first_position(trunk)
    return _first_position[trunk] is not None


_first_position: weakref.WeakKeyDictionary[nn.Module, int | None] = weakref.WeakKeyDictionary()
"""By trunk: the number of a text's first position, or None if packing doesn't work."""


def _packed_hidden(trunk: PreTrainedModel, tokens: PackedTokens, first_position: int | None, cache: Any = None) -> Tensor:
    if first_position is None:
        raise NotPackedError(f"{type(trunk).__name__} doesn't run on packed tokens")
    lengths, count = tokens.lengths, len(tokens.ids)
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    filled = -count % ROUND if lengths.device.type == "cpu" else 0
    positions = functional.pad(torch.arange(count, device=lengths.device) - starts, (0, filled)) + first_position
    ids = functional.pad(tokens.ids, (0, filled))
    # An all-ones mask: without one, transformers takes restarting positions as a reason to build an N x N mask.
    hidden: Tensor = trunk(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        position_ids=positions[None],
        packed_layout=BucketLayout.of(lengths, filled),
        **({} if tokens.types is None else {"token_type_ids": functional.pad(tokens.types, (0, filled))[None]}),
        **(_without_cache(trunk) if cache is None else {cache_argument(trunk) or "": cache, "use_cache": True}),
    ).last_hidden_state
    return hidden[0, :count]


def _without_cache(trunk: PreTrainedModel) -> dict[str, Any]:
    """`use_cache=False` for a trunk that has a cache; encoders don't take the argument."""
    return {"use_cache": False} if getattr(trunk.config, "use_cache", None) is not None else {}


def _find_first_position(trunk: PreTrainedModel) -> int | None:
    """The first position with which packed and padded agree on random tokens; None if there is none.

    If they agree, the trunk's attention stays switched.
    """
    from transformers.utils import logging

    implementation = trunk.config._attn_implementation
    if implementation not in ("sdpa", IMPLEMENTATION) or getattr(trunk.config, "is_encoder_decoder", False) or _reaches_beyond_trial(trunk):
        return None
    register_packed_attention()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # an attention that can't be switched is no fault here
    training = {module: module.training for module in trunk.modules()}
    trunk.eval()
    try:
        trunk.set_attn_implementation("sdpa")
        tokens, expected = _trial_texts(trunk)
        trunk.set_attn_implementation(IMPLEMENTATION)
        # RoBERTa counts its positions from the padding's id on.
        for first in (0, 1 + int(trunk.config.pad_token_id or 0)):
            if trunk.config._attn_implementation == IMPLEMENTATION and _agree_packed(trunk, tokens, first, expected):
                return first
        trunk.set_attn_implementation("sdpa")
        return None
    finally:
        logging.set_verbosity(verbosity)
        for module, mode in training.items():
            module.training = mode


def _reaches_beyond_trial(trunk: PreTrainedModel) -> bool:
    """True if the config names a state or a bounded attention, invisible in a trial on a few tokens."""
    config = trunk.config.get_text_config()
    kinds = {str(kind) for kind in getattr(config, "layer_types", None) or ()}
    bounded = [name for name in BOUNDED if _sets(config, name)]
    if not getattr(config, "use_sliding_window", True):
        bounded = [name for name in bounded if name != "sliding_window"]
    return bool(bounded) or not kinds <= {"full_attention", "attention"} or bool(getattr(trunk, "_is_stateful", False))


def _sets(config: Any, name: str) -> bool:
    """True if a config sets a key for any layer."""
    layers = getattr(config, "per_layer_config", None)
    return any(getattr(layer, name, None) for layer in layers) if layers else bool(getattr(config, name, None))


@torch.no_grad()
def _trial_texts(trunk: PreTrainedModel) -> tuple[PackedTokens, Tensor]:
    """Random texts, and the trunk's own vectors [N, D] for them, unpadded."""
    config = trunk.config.get_text_config()
    pad, vocabulary = int(config.pad_token_id or 0), int(config.vocab_size)
    positions = int(getattr(config, "max_position_embeddings", None) or MAX_TRIAL_POSITIONS + 1)
    longest = max(1, min(16, positions - 1 - pad))
    # A table of positions limits one text; the row of all texts is made longer than that.
    enough = positions if positions <= MAX_TRIAL_POSITIONS else 4 * longest
    sizes = [1 + 5 * i % longest for i in range(8)]
    sizes += [longest] * (1 + max(0, enough - sum(sizes)) // longest)
    tokens = PackedTokens(random_ids(sum(sizes), vocabulary, pad), torch.tensor(sizes)).to(trunk.device)
    expected, indices = [], []
    with torch.autocast(trunk.device.type, enabled=False):
        for size in dict.fromkeys(sizes):  # unpadded, by equal length
            part, part_indices = tokens.select((tokens.lengths == size).nonzero().squeeze(1))
            expected.append(padded_hidden(trunk, part)[0].flatten(0, 1))
            indices.append(part_indices)
    return tokens, torch.cat(expected)[torch.cat(indices).argsort()]


@torch.no_grad()
def _agree_packed(trunk: PreTrainedModel, tokens: PackedTokens, first_position: int, expected: Tensor) -> bool:
    try:
        with torch.autocast(trunk.device.type, enabled=False):
            hidden = _packed_hidden(trunk, tokens, first_position)
    except (NotPackedError, *READ_ERRORS):
        return False
    return agree(hidden, expected)


def padded_hidden(trunk: PreTrainedModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """The vectors [U, L, D] of right-padded texts by the trunk's own forward, and the mask [U, L]."""
    inputs = padded_inputs(tokens, int(getattr(trunk.config, "pad_token_id", None) or 0))
    return trunk(**inputs, **_without_cache(trunk)).last_hidden_state, inputs["attention_mask"]


def padded_inputs(tokens: PackedTokens, pad: int) -> dict[str, Tensor]:
    """Right-padded inputs [U, L] of a transformers model: ids, mask, and token types if any."""
    ids, mask = tokens.to_padded(pad)
    types = {} if tokens.types is None else {"token_type_ids": unpack(tokens.types, tokens.lengths)[0]}
    return {"input_ids": ids, "attention_mask": mask, **types}
