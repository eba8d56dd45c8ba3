"""Token by token through a language model with a cache of keys and values, from which finished rows leave.

Shapes: B prompts, P tokens of the longest, b rows that still go on, V vocabulary, H heads, D width of a head.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.backbone.packing import PackedTokens, packed_hidden, supports_packing
from rlhf_lightning.flow import Prompts

ROUND = 8
"""Rows of a step come in multiples of so many."""


class Decoder(Protocol):
    """Prompts that are continued together."""

    def start(self) -> Tensor:
        """Read the prompts: the logits [B, V] of the first token."""

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token [b] a row: the logits [b, V] of the next."""

    def keep(self, going: Tensor) -> Tensor:
        """Let the other rows [b] leave. Returns where in the old order each row that stays was: they may change places."""


def decoder_of(language_model: LanguageModel, prompts: Prompts, room: int) -> Decoder:
    """A decoder with `room` tokens for each response: the fast one where the model can be run packed."""
    if language_model.decoder_prefix is not None:
        return CrossDecoder(language_model, prompts, language_model.decoder_prefix)
    if supports_packing(language_model.model.base_model):
        return PackedDecoder(language_model, prompts, room)
    return PaddedDecoder(language_model, prompts)


class PaddedDecoder:
    """transformers' own cache and masks, on left-padded prompts: any model."""

    def __init__(self, language_model: LanguageModel, prompts: Prompts) -> None:
        self.model, self.ids, self.mask = language_model.model, prompts.prompt_ids, prompts.prompt_mask
        # GPT-2 reads absolute positions, so that padding would shift it.
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.cache: Any = None

    def start(self) -> Tensor:
        return self._read(self.ids)

    def step(self, tokens: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.positions = self.positions[:, -1:] + 1
        return self._read(tokens[:, None])

    def keep(self, going: Tensor) -> Tensor:
        rows = going.nonzero().squeeze(1)
        if len(rows) < len(going):
            self.cache.batch_select_indices(rows)
            self.mask, self.positions = self.mask[rows], self.positions[rows]
        return rows

    def _read(self, ids: Tensor) -> Tensor:
        output = self.model(
            input_ids=ids, attention_mask=self.mask, position_ids=self.positions, past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        self.cache = output.past_key_values
        logits: Tensor = output.logits[:, -1]
        return logits


class CrossDecoder:
    """An encoder-decoder: the prompts are encoded once, and each row begins with the decoder's prefix; no row has padding."""

    def __init__(self, language_model: LanguageModel, prompts: Prompts, prefix: list[int]) -> None:
        self.language_model, self.decoder = language_model, language_model.model.get_decoder()
        self.prefix = prompts.prompt_ids.new_tensor(prefix).expand(len(prompts), -1)
        mask = prompts.prompt_mask.bool()
        # To the right, however they came: BART counts positions from the first column.
        read, self.mask = PackedTokens(prompts.prompt_ids[mask], mask.sum(1)).padded(language_model.pad_id)
        self.encoded = language_model.model.get_encoder()(input_ids=read, attention_mask=self.mask).last_hidden_state
        self.cache: Any = None

    def start(self) -> Tensor:
        return self.step(self.prefix)

    def step(self, tokens: Tensor) -> Tensor:
        said = self.decoder(
            input_ids=tokens.view(len(tokens), -1), encoder_hidden_states=self.encoded, encoder_attention_mask=self.mask,
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        self.cache = said.past_key_values
        return self.language_model.logits(said.last_hidden_state[:, -1])

    def keep(self, going: Tensor) -> Tensor:
        rows = going.nonzero().squeeze(1)
        self.cache.batch_select_indices(rows)
        self.mask, self.encoded = self.mask[rows], self.encoded[rows]
        return rows


class PackedDecoder:
    """Prompts read without padding; keys and values in memory that is taken once.

    Rows end at the same column, so that a step writes one column; a row that goes on takes the place of one that leaves, so that leaving
    copies one row instead of all.
    """

    def __init__(self, language_model: LanguageModel, prompts: Prompts, room: int) -> None:
        from transformers import Cache

        self.language_model, self.trunk = language_model, language_model.model.base_model
        prompt = prompts.prompt_mask.bool()
        self.lengths = prompt.sum(1)
        self.ids = prompts.prompt_ids[prompt]
        self.seen = torch.cat([prompt, prompt.new_zeros(len(prompts), room)], dim=1)
        layer = _layer_class()
        self.layers = [layer(prompt, room) for _ in range(language_model.model.config.get_text_config().num_hidden_layers)]
        layers: Any = self.layers
        self.cache = Cache(layers=layers)
        self.columns = prompt.shape[1]

    def start(self) -> Tensor:
        hidden = packed_hidden(self.trunk, PackedTokens(self.ids, self.lengths), cache=self.cache)
        return self.language_model.logits(hidden[self.lengths.cumsum(0) - 1])

    def step(self, tokens: Tensor) -> Tensor:
        # Rows that have left make up a multiple: a kernel for each number of rows costs more than they do (backbone.packing.ROUND).
        rows = min(len(self.lengths), len(tokens) + -len(tokens) % ROUND)
        read = torch.nn.functional.pad(tokens, (0, rows - len(tokens)))
        self.seen[:rows, self.columns] = True
        self.columns += 1
        hidden = self.trunk(
            input_ids=read[:, None],
            attention_mask=self.seen[:rows, None, None, : self.columns],
            position_ids=self.lengths[:rows, None],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.lengths[:rows] += 1
        return self.language_model.logits(hidden[:, -1])[: len(tokens)]

    def keep(self, going: Tensor) -> Tensor:
        stay = int(going.sum())
        order = torch.arange(stay, device=going.device)
        holes, movers = (~going[:stay]).nonzero().squeeze(1), going[stay:].nonzero().squeeze(1) + stay
        if len(holes):
            order[holes] = movers
            self.seen[holes], self.lengths[holes] = self.seen[movers], self.lengths[movers]
            for layer in self.layers:
                layer.move(movers, holes)
        return order


@functools.cache
def _layer_class() -> type[_Rows]:
    """`_Rows` as a layer of transformers' Cache, which asks for its own kind."""
    from transformers.cache_utils import DynamicLayer

    return type("RowsLayer", (_Rows, DynamicLayer), {})


class _Rows:
    """One layer's keys and values [B, H, P + room, D]."""

    is_initialized = True

    def __init__(self, prompt: Tensor, room: int) -> None:
        self.prompt, self.room = prompt, room
        self.columns = 0
        self.keys: Tensor
        self.values: Tensor

    def update(self, keys: Tensor, values: Tensor, *args: Any, **rest: Any) -> tuple[Tensor, Tensor]:
        """Write and give back all that is there; of the prompts, [1, H, N, D] packed, what came in."""
        if not self.columns:
            self.keys, self.values = self._taken(keys), self._taken(values)
            self.columns = self.prompt.shape[1]
            return keys, values
        rows, self.columns = len(keys), self.columns + 1
        self.keys[:rows, :, self.columns - 1] = keys[:, :, 0]
        self.values[:rows, :, self.columns - 1] = values[:, :, 0]
        return self.keys[:rows, :, : self.columns], self.values[:rows, :, : self.columns]

    def _taken(self, packed: Tensor) -> Tensor:
        rows, columns = self.prompt.shape
        memory = packed.new_zeros(rows, packed.shape[1], columns + self.room, packed.shape[3])
        memory[:, :, :columns].transpose(1, 2)[self.prompt] = packed[0].transpose(0, 1)[: int(self.prompt.sum())]
        return memory

    def move(self, sources: Tensor, targets: Tensor) -> None:
        for memory in (self.keys, self.values):
            memory[targets, :, : self.columns] = memory[sources, :, : self.columns]

    def get_seq_length(self) -> int:
        return self.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_max_length(self) -> int:
        return -1
