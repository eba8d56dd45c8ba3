"""The vectors of texts' tokens by any trunk, each text's as if it were read alone, in as few forward passes as the trunk allows.

Shapes: U texts, N tokens of all of them, L tokens of the longest, D width.
"""

from __future__ import annotations

import enum
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.model.packing import PackedTokens, packed_hidden, padded_hidden, supports_packing, unpack
from rlhf_lightning.model.rope import reset_rope, rope_limit
from rlhf_lightning.model.trial import READ_ERRORS, agree, random_ids, trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRIAL_LENGTHS = (7, 2, 12, 7)


class Batching(enum.Enum):
    """How texts of different lengths are read together."""

    PACKED = "packed"
    PADDED = "padded"
    EQUAL_LENGTHS = "equal lengths"


_batching: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
"""By trunk that doesn't run packed: whether right-padding leaves its vectors as they are."""


def text_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> Tensor:
    """The vectors [N, D] of texts, of an encoder-decoder those of its decoder."""
    groups = text_groups(trunk, tokens)
    if groups is None:
        return _together(trunk, tokens)
    vectors, places = [], []
    for rows in groups:
        part, own = tokens.select(rows)
        vectors.append(_together(trunk, part))
        places.append(own)
    return torch.cat(vectors)[torch.cat(places).argsort()]


def batching(trunk: PreTrainedModel) -> Batching:
    """How the trunk reads texts of different lengths together: tried once on random tokens, and remembered."""
    if supports_packing(trunk):
        return Batching.PACKED
    if trunk not in _batching:
        _batching[trunk] = _pads_exactly(trunk)
    return Batching.PADDED if _batching[trunk] else Batching.EQUAL_LENGTHS


def text_groups(trunk: PreTrainedModel, tokens: PackedTokens) -> list[Tensor] | None:
    """The rows of texts that may be read together, group by group; None where all may.

    Positions that are scaled by the longest text's length (longrope, dynamic) are as each text alone has them: texts within the original
    positions together, longer ones together (longrope) or by equal length (dynamic).
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
        torch.tensor([row for row, own in enumerate(keys) if own == key], device=tokens.ids.device) for key in dict.fromkeys(keys)
    ]  # fmt: skip


def decoder_hidden(model: PreTrainedModel, tokens: PackedTokens, context: PackedTokens) -> tuple[Tensor, Tensor]:
    """The vectors [U, L, D] of an encoder-decoder's decoder, right-padded, and the mask [U, L]; `context` is what its encoder reads."""
    pad = int(model.config.pad_token_id or 0)
    read, read_mask = context.to_padded(pad)
    ids, mask = tokens.to_padded(pad)
    encoded = model.get_encoder()(input_ids=read, attention_mask=read_mask).last_hidden_state
    decoder = model.get_decoder()
    output = decoder(
        input_ids=ids, attention_mask=mask, encoder_hidden_states=encoded, encoder_attention_mask=read_mask, use_cache=False
    )  # fmt: skip
    return output.last_hidden_state, mask


def check_batch_invariance(trunk: PreTrainedModel, *, causal: bool) -> None:
    """Compare what a trunk makes of random texts alone and in company.

    Args:
        causal: no token may see a later one.

    Raises:
        ConfigError: it can't read token ids alone, reads later tokens, or its vectors depend on the texts that are read with them.
    """
    name, tokens = type(trunk).__name__, _trial_texts(trunk)
    texts = [tokens.select(torch.tensor([row], device=tokens.ids.device))[0] for row in range(len(tokens))]
    with trial(trunk):
        try:
            alone = [_together_padded(trunk, text) for text in texts]
        except READ_ERRORS as cause:
            raise ConfigError(f"{name} can't read token ids by themselves: {_first_line(cause)}") from cause
        if not all(bool(torch.isfinite(vectors).all()) for vectors in alone):
            raise ConfigError(f"{name} makes vectors that aren't finite: its weights are damaged, or its precision is too low for them")
        width = int(trunk.config.get_text_config(decoder=True).hidden_size)
        if alone[0].shape[-1] != width:
            raise ConfigError(f"{name} is not supported: its vectors have {alone[0].shape[-1]} numbers, and its config says {width}")
        together = text_vectors(trunk, tokens)
        if not agree(together, torch.cat(alone)):
            raise ConfigError(f"{name} is not supported: its vectors of a text depend on the texts that are read with it")
        if causal and not agree(_together_padded(trunk, texts[2].start(5)), alone[2][:5]):
            raise ConfigError(f"{name} is not supported as a language model: its vector of a token depends on later tokens")
        _check_gradient(trunk, texts[0])


def _check_gradient(trunk: PreTrainedModel, tokens: PackedTokens) -> None:
    """Reject a recurrent trunk that torch can't differentiate, as where its code changes its state in place."""
    if not getattr(trunk, "_is_stateful", False):
        return
    embedding: Any = trunk.get_input_embeddings()
    weight = embedding.weight
    if weight.requires_grad:
        try:
            with torch.enable_grad():
                torch.autograd.grad(_together_padded(trunk, tokens).float().square().sum(), weight)
        except RuntimeError as cause:
            raise ConfigError(f"{type(trunk).__name__} can't be trained: {_first_line(cause)[:160]}") from cause


def _first_line(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}"


def _longest(tokens: PackedTokens) -> int:
    longest = int(tokens.lengths.max()) if len(tokens) else 0
    return longest if tokens.context is None else max(longest, _longest(tokens.context))


def _together(trunk: PreTrainedModel, tokens: PackedTokens) -> Tensor:
    if tokens.context is None and supports_packing(trunk):
        reset_rope(trunk)
        return packed_hidden(trunk, tokens)
    return _together_padded(trunk, tokens)


def _together_padded(trunk: PreTrainedModel, tokens: PackedTokens) -> Tensor:
    hidden, mask = padded_vectors(trunk, tokens)
    return hidden[mask.bool()]


def padded_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """The vectors [U, L, D] of texts, right-padded, and the mask [U, L], by one padded forward pass."""
    reset_rope(trunk)
    return padded_hidden(trunk, tokens) if tokens.context is None else decoder_hidden(trunk, tokens, tokens.context)


def _trial_texts(trunk: PreTrainedModel) -> PackedTokens:
    config: Any = trunk.config
    pad, vocabulary = config.pad_token_id, int(config.get_text_config(decoder=True).vocab_size)
    ids = random_ids(2 * sum(TRIAL_LENGTHS), vocabulary, pad if isinstance(pad, int) else None)
    own, other = ids.to(trunk.device).split(sum(TRIAL_LENGTHS))
    lengths = torch.tensor(TRIAL_LENGTHS, device=own.device)
    context = PackedTokens(other, lengths.flip(0)) if getattr(config, "is_encoder_decoder", False) else None
    return PackedTokens(own, lengths, context=context)


def _pads_exactly(trunk: PreTrainedModel) -> bool:
    """Whether right-padded texts get the vectors of each text alone."""
    tokens = _trial_texts(trunk)
    texts = [tokens.select(torch.tensor([row], device=tokens.ids.device))[0] for row in range(len(tokens))]
    with trial(trunk):
        try:
            return agree(_together_padded(trunk, tokens), torch.cat([_together_padded(trunk, text) for text in texts]))
        except READ_ERRORS:
            return False


def token_vectors(trunk: PreTrainedModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """`text_vectors` as [U, L, D], right-padded, with the mask [U, L]."""
    if batching(trunk) is Batching.PADDED and text_groups(trunk, tokens) is None:
        return padded_vectors(trunk, tokens)
    return unpack(text_vectors(trunk, tokens), tokens.lengths)
