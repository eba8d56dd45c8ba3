"""Choice of the fastest decoder whose logits equal those of a plain forward pass.

Shapes: B prompts, P tokens of the longest, b rows that still go on, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from rlhf_lightning.flow import Prompts
from rlhf_lightning.model.language_model import LanguageModel, pad_rows
from rlhf_lightning.model.packing import supports_packing
from rlhf_lightning.model.trial import READ_ERRORS, agree, random_ids, trial
from rlhf_lightning.rollout.sampler._cached import CachelessDecoder, CrossDecoder, EqualLengthDecoder, NoCacheError, PaddedDecoder
from rlhf_lightning.rollout.sampler._packed import PackedDecoder

TRIAL_LENGTHS = (6, 3, 3, 2)
"""Tokens of the prompts that decoders are tried on."""
TRIAL_STEPS = 4


class Decoder(Protocol):
    """Prompts that are continued together."""

    def start(self) -> Tensor:
        """Read the prompts: the logits [B, V] of the first token."""

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token [b] a row: the logits [b, V] of the next."""

    def keep(self, going: Tensor) -> Tensor:
        """Drop the other rows [b]; returns the old index of each remaining row, in the new order."""


MakeDecoder = Callable[[LanguageModel, Prompts, int], Decoder]

_decoders: weakref.WeakKeyDictionary[nn.Module, tuple[bool, MakeDecoder]] = weakref.WeakKeyDictionary()
"""By model: whether it ran packed, and the chosen decoder."""


def decoder_of(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    """A decoder with `room` tokens for each response."""
    return _choose(language_model)(language_model, prompts, room)


def reads_padding(language_model: LanguageModel) -> bool:
    """Check if the model's own `generate` may continue left-padded prompts of different lengths."""
    return _choose(language_model) in (_packed_decoder, _padded_decoder, _cross)


def _choose(language_model: LanguageModel) -> MakeDecoder:
    """Choose the first of `_candidates` that passes `decodes_exactly`; cached by model."""
    model = language_model.model
    packs = language_model.decoder_prefix is None and supports_packing(language_model.trunk)
    if model not in _decoders or _decoders[model][0] != packs:
        make = next((make for make in _candidates(language_model, packs) if decodes_exactly(language_model, make)), _cacheless)
        _decoders[model] = packs, make
    return _decoders[model][1]


def _candidates(language_model: LanguageModel, packs: bool) -> Iterator[MakeDecoder]:
    """Decoders from the fastest to the slowest, except the one without a cache: it needs no trial."""
    if language_model.decoder_prefix is not None:
        yield _cross
        return
    if packs:
        yield _packed_decoder
    if not is_recurrent(language_model.model):
        yield _padded_decoder
    yield _equal_lengths
    yield _equal_lengths_masked
    yield _equal_lengths_all_rows


def _cross(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    return CrossDecoder(language_model, prompts, language_model.decoder_prefix or [])


def _packed_decoder(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    return PackedDecoder(language_model, prompts, room)


def _padded_decoder(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    return PaddedDecoder(language_model, prompts.prompt_ids, prompts.prompt_mask)


def _equal_lengths(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    return EqualLengthDecoder(language_model, prompts)


def _equal_lengths_masked(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    return EqualLengthDecoder(language_model, prompts, is_masked=True)


def _equal_lengths_all_rows(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    return EqualLengthDecoder(language_model, prompts, drops_rows=False)


def _cacheless(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    return CachelessDecoder(language_model, prompts)


def is_recurrent(model: nn.Module) -> bool:
    """Check if layers carry a state from token to token: padding before a prompt may change it."""
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    kinds = {str(kind) for name in ("layer_types", "layers_block_type", "block_types") for kind in getattr(config, name, None) or ()}
    stateless = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
    return bool(getattr(model, "_is_stateful", False)) or not kinds <= stateless


def decodes_exactly(language_model: LanguageModel, make: MakeDecoder) -> bool:
    """Compare a decoder with plain forward passes, on random rows of several lengths; some leave early."""
    model = language_model.model
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    prefix = language_model.decoder_prefix
    sizes = [size + TRIAL_STEPS for size in TRIAL_LENGTHS]
    ids = random_ids(sum(sizes), vocabulary, language_model.pad_id).to(model.device)
    texts = ids.split(sizes)
    rows = [text[:size] for text, size in zip(texts, TRIAL_LENGTHS, strict=True)]
    padded, mask = (x.to(model.device) for x in pad_rows([row.tolist() for row in rows], language_model.pad_id, pad_left=prefix is None))
    prompts = Prompts(prompts=[""] * len(rows), prompt_ids=padded, prompt_mask=mask, group=torch.arange(len(rows)))
    with trial(model):
        expected = [_plain_logits(language_model, text, size) for text, size in zip(texts, TRIAL_LENGTHS, strict=True)]
        try:
            decoder = make(language_model, prompts, TRIAL_STEPS)
            return _follows(decoder, [text[size:] for text, size in zip(texts, TRIAL_LENGTHS, strict=True)], expected)
        except (NoCacheError, *READ_ERRORS):
            return False


def _follows(decoder: Decoder, responses: list[Tensor], expected: list[Tensor]) -> bool:
    """Compare the decoder with the expected logits [steps + 1, V] of each row while rows leave."""
    alive = torch.arange(len(responses), device=responses[0].device)
    logits = decoder.start()
    for step in range(TRIAL_STEPS):
        if not agree(logits, torch.stack([expected[row][step] for row in alive.tolist()])):
            return False
        if step in (1, 2):  # a row that has an equally long neighbour, then one that has none
            alive = alive[decoder.keep(alive != (1, 3)[step - 1])]
        logits = decoder.step(torch.stack([responses[row][step] for row in alive.tolist()]))
    return agree(logits, torch.stack([expected[row][TRIAL_STEPS] for row in alive.tolist()]))


def _plain_logits(language_model: LanguageModel, text: Tensor, prompt_length: int) -> Tensor:
    """Logits [steps + 1, V] after the prompt and each further token, of one row without padding or cache."""
    model, prefix = language_model.model, language_model.decoder_prefix
    if prefix is None:
        logits: Tensor = model(input_ids=text[None], use_cache=False).logits[0, prompt_length - 1 :]
    else:
        response = torch.cat([text.new_tensor(prefix), text[prompt_length:]])
        prompt = text[None, :prompt_length]
        logits = model(input_ids=prompt, decoder_input_ids=response[None], use_cache=False).logits[0, len(prefix) - 1 :]
    return logits
