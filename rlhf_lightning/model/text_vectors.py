"""Token vectors of texts by any trunk, independent of the batch, in few forward passes.

Shapes: U texts, N tokens of all of them, L tokens of the longest, D width.
"""

from __future__ import annotations

import enum
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError, summarize_exception
from rlhf_lightning.model.packing import PackedTokens, packed_hidden, padded_hidden, supports_packing, unpack
from rlhf_lightning.model.rope import reset_rope, rope_limit
from rlhf_lightning.model.trial import READ_ERRORS, agree, random_ids, trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRIAL_LENGTHS = (7, 2, 12, 7)


class Batching(enum.Enum):
    """Ways to batch texts of different lengths."""

    PACKED = "packed"
    PADDED = "padded"
    EQUAL_LENGTHS = "equal lengths"


_batching: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
"""For trunks that don't run packed: whether right-padding leaves the vectors unchanged."""


def text_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> Tensor:
    """The vectors [N, D] of texts; those of the decoder for an encoder-decoder."""
    groups = text_groups(trunk, tokens)
    if groups is None:
        return _batch_vectors(trunk, tokens)
    vectors, indices = [], []
    for rows in groups:
        part, part_indices = tokens.select(rows)
        vectors.append(_batch_vectors(trunk, part))
        indices.append(part_indices)
    return torch.cat(vectors)[torch.cat(indices).argsort()]


def batching(trunk: PreTrainedModel) -> Batching:
    """The trunk's batching: tried once on random tokens, then cached."""
    if supports_packing(trunk):
        return Batching.PACKED
    if trunk not in _batching:
        _batching[trunk] = _pads_exactly(trunk)
    return Batching.PADDED if _batching[trunk] else Batching.EQUAL_LENGTHS


def text_groups(trunk: PreTrainedModel, tokens: PackedTokens) -> list[Tensor] | None:
    """Rows of texts that may share a forward pass, by group; None if all may.

    Where positions are scaled by the longest text's length, texts within the original positions form one group, longer ones
    another (longrope) or one for each length (dynamic), so that each text has the positions that it has alone.
    """
    limit = rope_limit(trunk)
    equal = batching(trunk) is Batching.EQUAL_LENGTHS
    if not equal and (limit is None or _longest(tokens) <= limit.positions):
        return None
    keys: list[Any] = []
    contexts = [0] * len(tokens) if tokens.context is None else tokens.context.lengths.tolist()
    for length, context in zip(tokens.lengths.tolist(), contexts, strict=True):
        longest = max(length, context)
        scaled = 0 if limit is None or longest <= limit.positions else longest if limit.by_length else 1
        keys.append((length, context) if equal else scaled)
    return [
        torch.tensor([row for row, other in enumerate(keys) if other == key], device=tokens.ids.device) for key in dict.fromkeys(keys)
    ]  # fmt: skip


def decoder_hidden(model: PreTrainedModel, tokens: PackedTokens, context: PackedTokens) -> tuple[Tensor, Tensor]:
    """Right-padded vectors [U, L, D] of a decoder whose encoder reads `context`, and the mask [U, L]."""
    pad = int(model.config.pad_token_id or 0)
    context_ids, context_mask = context.to_padded(pad)
    ids, mask = tokens.to_padded(pad)
    encoded = model.get_encoder()(input_ids=context_ids, attention_mask=context_mask).last_hidden_state
    decoder = model.get_decoder()
    output = decoder(
        input_ids=ids, attention_mask=mask, encoder_hidden_states=encoded, encoder_attention_mask=context_mask, use_cache=False
    )  # fmt: skip
    return output.last_hidden_state, mask


def check_batch_invariance(trunk: PreTrainedModel, *, causal: bool) -> None:
    """Check on random texts that a trunk's vectors don't depend on the batch.

    Args:
        causal: check that they don't depend on later tokens either.

    Raises:
        ConfigError: the vectors depend on other texts or later tokens, aren't finite, or can't be computed from token ids.
    """
    name, tokens = type(trunk).__name__, _trial_texts(trunk)
    texts = [tokens.select(torch.tensor([row], device=tokens.ids.device))[0] for row in range(len(tokens))]
    with trial(trunk):
        try:
            single = [_padded_vectors(trunk, text) for text in texts]
        except READ_ERRORS as cause:
            raise ConfigError(f"{name} can't read token ids by themselves: {summarize_exception(cause)}") from cause
        if not all(bool(torch.isfinite(vectors).all()) for vectors in single):
            raise ConfigError(f"{name} makes vectors that aren't finite: its weights are damaged, or its precision is too low for them")
        width = int(trunk.config.get_text_config(decoder=True).hidden_size)
        if single[0].shape[-1] != width:
            raise ConfigError(f"{name} is not supported: its vectors have {single[0].shape[-1]} numbers, and its config says {width}")
        if not agree(text_vectors(trunk, tokens), torch.cat(single)):
            raise ConfigError(f"{name} is not supported: its vectors of a text depend on the texts that are read with it")
        if causal and not agree(_padded_vectors(trunk, texts[2].truncate(5)), single[2][:5]):
            raise ConfigError(f"{name} is not supported as a language model: its vector of a token depends on later tokens")
        _check_gradient(trunk, texts[0])


def _check_gradient(trunk: PreTrainedModel, tokens: PackedTokens) -> None:
    """Reject a recurrent trunk without a gradient, as one whose code changes its state in place."""
    if not getattr(trunk, "_is_stateful", False):
        return
    embedding: Any = trunk.get_input_embeddings()
    weight = embedding.weight
    if weight.requires_grad:
        try:
            with torch.enable_grad():
                torch.autograd.grad(_padded_vectors(trunk, tokens).float().square().sum(), weight)
        except RuntimeError as cause:
            raise ConfigError(f"{type(trunk).__name__} can't be trained: {summarize_exception(cause)[:160]}") from cause


def _longest(tokens: PackedTokens) -> int:
    longest = int(tokens.lengths.max()) if len(tokens) else 0
    return longest if tokens.context is None else max(longest, _longest(tokens.context))


def _batch_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> Tensor:
    """The vectors [N, D] of texts by one forward pass."""
    if tokens.context is None and supports_packing(trunk):
        reset_rope(trunk)
        return packed_hidden(trunk, tokens)
    return _padded_vectors(trunk, tokens)


def _padded_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> Tensor:
    hidden, mask = padded_vectors(trunk, tokens)
    return hidden[mask.bool()]


def padded_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """Right-padded vectors [U, L, D] of texts by one padded forward pass, and the mask [U, L]."""
    reset_rope(trunk)
    return padded_hidden(trunk, tokens) if tokens.context is None else decoder_hidden(trunk, tokens, tokens.context)


def _trial_texts(trunk: PreTrainedModel) -> PackedTokens:
    config: Any = trunk.config
    pad, vocabulary = config.pad_token_id, int(config.get_text_config(decoder=True).vocab_size)
    ids = random_ids(2 * sum(TRIAL_LENGTHS), vocabulary, pad if isinstance(pad, int) else None)
    ids, context_ids = ids.to(trunk.device).split(sum(TRIAL_LENGTHS))
    lengths = torch.tensor(TRIAL_LENGTHS, device=ids.device)
    context = PackedTokens(context_ids, lengths.flip(0)) if getattr(config, "is_encoder_decoder", False) else None
    return PackedTokens(ids, lengths, context=context)


def _pads_exactly(trunk: PreTrainedModel) -> bool:
    """True if right-padding leaves each text's vectors unchanged."""
    tokens = _trial_texts(trunk)
    texts = [tokens.select(torch.tensor([row], device=tokens.ids.device))[0] for row in range(len(tokens))]
    with trial(trunk):
        try:
            return agree(_padded_vectors(trunk, tokens), torch.cat([_padded_vectors(trunk, text) for text in texts]))
        except READ_ERRORS:
            return False


def token_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """`text_vectors` as [U, L, D], right-padded, with the mask [U, L]."""
    if batching(trunk) is Batching.PADDED and text_groups(trunk, tokens) is None:
        return padded_vectors(trunk, tokens)
    return unpack(text_vectors(trunk, tokens), tokens.lengths)
