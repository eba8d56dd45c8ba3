"""The fast decoder: prompts read packed, keys and values in memory that is allocated once.

Shapes: B prompts, P tokens of the longest, b unfinished rows, H heads, D width of a head.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.flow import Prompts
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens, cache_argument, packed_hidden

ROUND = 8
"""The rows of a step are a multiple of this."""


class PackedDecoder:
    """Prompts without padding; keys and values in memory that is allocated once.

    Rows end at the same column: a step writes one column. A remaining row replaces one that leaves: leaving copies one row, not all.
    """

    def __init__(self, language_model: LanguageModel, prompts: Prompts, room: int) -> None:
        from transformers import Cache

        self.language_model, self.trunk = language_model, language_model.trunk
        prompt = prompts.prompt_mask.bool()
        self.lengths = prompt.sum(1)
        self.ids = prompts.prompt_ids[prompt]
        self.readable = torch.cat([prompt, prompt.new_zeros(len(prompts), room)], dim=1)
        layer = _layer_class()
        self.layers = [layer(prompt, room) for _ in range(language_model.model.config.get_text_config().num_hidden_layers)]
        layers: Any = self.layers
        self.cache = Cache(layers=layers)
        self.columns = prompt.shape[1]
        self.argument = cache_argument(self.trunk) or ""

    def start(self) -> Tensor:
        hidden = packed_hidden(self.trunk, PackedTokens(self.ids, self.lengths), cache=self.cache)
        return self.language_model.logits(hidden[self.lengths.cumsum(0) - 1])

    def step(self, tokens: Tensor) -> Tensor:
        # Finished rows pad to a multiple: a kernel for each number of rows costs more (model.packing.ROUND).
        rows = min(len(self.lengths), len(tokens) + -len(tokens) % ROUND)
        read = torch.nn.functional.pad(tokens, (0, rows - len(tokens)))
        self.readable[:rows, self.columns] = True
        self.columns += 1
        hidden = self.trunk(
            input_ids=read[:, None],
            attention_mask=self.readable[:rows, None, None, : self.columns],
            position_ids=self.lengths[:rows, None],
            use_cache=True,
            **{self.argument: self.cache},
        ).last_hidden_state
        self.lengths[:rows] += 1
        return self.language_model.logits(hidden[:, -1])[: len(tokens)]

    def keep(self, going: Tensor) -> Tensor:
        stay = int(going.sum())
        order = torch.arange(stay, device=going.device)
        holes, movers = (~going[:stay]).nonzero().squeeze(1), going[stay:].nonzero().squeeze(1) + stay
        if len(holes):
            order[holes] = movers
            self.readable[holes], self.lengths[holes] = self.readable[movers], self.lengths[movers]
            for layer in self.layers:
                layer.move(movers, holes)
        return order


@functools.cache
def _layer_class() -> type[_Rows]:
    """`_Rows` as a layer class of transformers' Cache."""
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
        """Write keys and values; return all of them, or for the prompts the packed input [1, H, N, D]."""
        if not self.columns:
            self.keys, self.values = self._allocate(keys), self._allocate(values)
            self.columns = self.prompt.shape[1]
            return keys, values
        rows, self.columns = len(keys), self.columns + 1
        self.keys[:rows, :, self.columns - 1] = keys[:, :, 0]
        self.values[:rows, :, self.columns - 1] = values[:, :, 0]
        return self.keys[:rows, :, : self.columns], self.values[:rows, :, : self.columns]

    def _allocate(self, packed: Tensor) -> Tensor:
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
