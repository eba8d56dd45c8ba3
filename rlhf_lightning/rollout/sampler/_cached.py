"""Decoders for models that don't run packed: with the model's cache, or without a cache.

Shapes: B prompts, P tokens of the longest, b rows that still go on, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.flow import Prompts
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens, accepted_arguments, cache_argument
from rlhf_lightning.model.text_vectors import text_vectors


class NoCacheError(Exception):
    """The model returns no cache, or can't be continued from it."""


class PaddedDecoder:
    """The model's own cache and masks, on left-padded prompts.

    Args:
        ids: [B, P], left-padded.
        mask: [B, P]; None where there is no padding: the model counts positions by itself.
        drops_rows: select the rows that continue from the cache; else finished rows stay in the batch and what they produce is ignored.
    """

    def __init__(self, language_model: LanguageModel, ids: Tensor, mask: Tensor | None, drops_rows: bool = True) -> None:
        self.model, self.ids, self.mask = language_model.model, ids, mask
        # GPT-2 reads absolute positions, so that padding would shift it.
        self.positions = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
        self.drops_rows, self.rows = drops_rows, torch.arange(len(self.ids), device=self.ids.device)
        self.argument = cache_argument(self.model)
        self.cache: Any = None

    def start(self) -> Tensor:
        return self._read(self.ids)

    def step(self, tokens: Tensor) -> Tensor:
        if not self.drops_rows:
            tokens = tokens.new_zeros(len(self.ids)).index_copy(0, self.rows, tokens)
        if self.mask is not None and self.positions is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
            self.positions = self.positions[:, -1:] + 1
        return self._read(tokens[:, None])[self.rows]

    def keep(self, going: Tensor) -> Tensor:
        rows = going.nonzero().squeeze(1)
        if not self.drops_rows:
            self.rows = self.rows[rows]
        elif len(rows) < len(going):
            self.cache.reorder_cache(rows)
            self.rows = self.rows[: len(rows)]
            if self.mask is not None and self.positions is not None:
                self.mask, self.positions = self.mask[rows], self.positions[rows]
        return rows

    def _read(self, ids: Tensor) -> Tensor:
        if self.argument is None:
            raise NoCacheError(f"{type(self.model).__name__} takes no cache")
        arguments = {"input_ids": ids, self.argument: self.cache, "use_cache": True, "logits_to_keep": 1}
        if self.mask is not None:
            arguments |= {"attention_mask": self.mask, "position_ids": self.positions}
        output = self.model(**accepted_arguments(self.model, **arguments))
        self.cache = getattr(output, self.argument, None)
        if self.cache is None:
            raise NoCacheError(f"{type(self.model).__name__} returns no {self.argument}")
        logits: Tensor = output.logits[:, -1]
        return logits


class EqualLengthDecoder:
    """Prompts of equal length together, so that none has padding: a recurrent state would read it.

    Args:
        drops_rows: as of PaddedDecoder.
        is_masked: give the model masks and positions, though there is no padding.
    """

    def __init__(self, language_model: LanguageModel, prompts: Prompts, drops_rows: bool = True, is_masked: bool = False) -> None:
        mask = prompts.prompt_mask.bool()
        lengths = mask.sum(1)
        self.groups: list[tuple[PaddedDecoder, Tensor]] = []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            ids = prompts.prompt_ids[rows][mask[rows]].view(len(rows), length)
            self.groups.append((PaddedDecoder(language_model, ids, torch.ones_like(ids) if is_masked else None, drops_rows), rows))

    def start(self) -> Tensor:
        return self._merge([decoder.start() for decoder, _ in self.groups])

    def step(self, tokens: Tensor) -> Tensor:
        return self._merge([decoder.step(tokens[rows]) for decoder, rows in self.groups])

    def keep(self, going: Tensor) -> Tensor:
        new_rows = going.long().cumsum(0) - 1
        groups = []
        for decoder, rows in self.groups:
            if bool(going[rows].any()):
                decoder.keep(going[rows])
                groups.append((decoder, new_rows[rows[going[rows]]]))
        self.groups = groups
        return going.nonzero().squeeze(1)

    def _merge(self, logits: list[Tensor]) -> Tensor:
        rows = torch.cat([rows for _, rows in self.groups])
        return torch.cat(logits)[rows.argsort()]


class CachelessDecoder:
    """Each step reads all tokens again: slow, for models without a cache that can be continued."""

    def __init__(self, language_model: LanguageModel, prompts: Prompts) -> None:
        self.language_model, self.context = language_model, None
        ids, mask = prompts.prompt_ids, prompts.prompt_mask.bool()
        self.rows = [row[inside] for row, inside in zip(ids, mask, strict=True)]
        if language_model.decoder_prefix is not None:
            self.context, prefix = self.rows, ids.new_tensor(language_model.decoder_prefix)
            self.rows = [prefix] * len(self.rows)

    def start(self) -> Tensor:
        tokens = _pack(self.rows)
        if self.context is not None:
            tokens = PackedTokens(tokens.ids, tokens.lengths, context=_pack(self.context))
        hidden = text_vectors(self.language_model.trunk, tokens)
        return self.language_model.logits(hidden[tokens.lengths.cumsum(0) - 1])

    def step(self, tokens: Tensor) -> Tensor:
        self.rows = [torch.cat([row, token]) for row, token in zip(self.rows, tokens.split(1), strict=True)]
        return self.start()

    def keep(self, going: Tensor) -> Tensor:
        rows = going.nonzero().squeeze(1)
        self.rows = [self.rows[row] for row in rows.tolist()]
        self.context = None if self.context is None else [self.context[row] for row in rows.tolist()]
        return rows


class CrossDecoder:
    """An encoder-decoder: prompts are encoded once; each row starts with the decoder's prefix, unpadded."""

    def __init__(self, language_model: LanguageModel, prompts: Prompts, prefix: list[int]) -> None:
        self.language_model, self.decoder = language_model, language_model.model.get_decoder()
        self.prefix = prompts.prompt_ids.new_tensor(prefix).expand(len(prompts), -1)
        mask = prompts.prompt_mask.bool()
        # To the right, however they came: BART counts positions from the first column.
        read, self.mask = PackedTokens(prompts.prompt_ids[mask], mask.sum(1)).to_padded(language_model.pad_id)
        self.encoded = language_model.model.get_encoder()(input_ids=read, attention_mask=self.mask).last_hidden_state
        self.argument = cache_argument(self.decoder)
        self.cache: Any = None

    def start(self) -> Tensor:
        return self.step(self.prefix)

    def step(self, tokens: Tensor) -> Tensor:
        if self.argument is None:
            raise NoCacheError(f"{type(self.decoder).__name__} takes no cache")
        output = self.decoder(
            input_ids=tokens.view(len(tokens), -1), encoder_hidden_states=self.encoded, encoder_attention_mask=self.mask,
            use_cache=True, **{self.argument: self.cache},
        )  # fmt: skip
        self.cache = getattr(output, self.argument, None)
        if self.cache is None:
            raise NoCacheError(f"{type(self.decoder).__name__} returns no {self.argument}")
        return self.language_model.logits(output.last_hidden_state[:, -1])

    def keep(self, going: Tensor) -> Tensor:
        rows = going.nonzero().squeeze(1)
        self.cache.reorder_cache(rows)
        self.mask, self.encoded = self.mask[rows], self.encoded[rows]
        return rows


def _pack(rows: list[Tensor]) -> PackedTokens:
    return PackedTokens(torch.cat(rows), torch.tensor([len(row) for row in rows], device=rows[0].device))
