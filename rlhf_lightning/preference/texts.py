"""Distinct texts as token ids, each tokenised once for all that was said about it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf_lightning.feedback.judgements import PromptResponse
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEFT_OUT = -1


class TextTable:
    """Texts by place, 4 bytes a token. A text longer than max_length isn't in it: cut, its response would end where it doesn't.

    Attributes:
        too_long: how many distinct texts were left out. rewritten: of how many answers the chat template drops a part.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, stop_ids: Sequence[int] = ()) -> None:
        self.max_length = max_length
        self._rows = TextEncoder(tokenizer, InputFormat(), max_length, tuple(stop_ids))
        self._places: dict[PromptResponse, int] = {}
        self._ids, self._ends, self._response_starts = array("i"), array("q", [0]), array("q")
        self.too_long = self.rewritten = 0

    def __len__(self) -> int:
        return len(self._response_starts)

    def place(self, text: PromptResponse) -> int:
        """Where the text stands, LEFT_OUT for one that is too long."""
        if text not in self._places:
            row = self._rows.encode(text)
            self._places[text] = LEFT_OUT if row.is_cut else len(self)
            self.too_long += row.is_cut
            self.rewritten += row.is_rewritten
            if not row.is_cut:
                self._ids.extend(row.ids)
                self._ends.append(len(self._ids))
                self._response_starts.append(len(row.before))
        return self._places[text]

    def length(self, place: int) -> int:
        """The text's number of tokens."""
        return self._ends[place + 1] - self._ends[place]

    def answer_length(self, place: int) -> int:
        """How many tokens of its response are predicted."""
        return self.length(place) - max(1, self._response_starts[place])

    def packed(self, places: Sequence[int] | np.ndarray) -> PackedTokens:
        """The texts at these places in one row."""
        rows = [self._ids[self._ends[place] : self._ends[place + 1]] for place in places]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        starts = torch.tensor([self._response_starts[place] for place in places], dtype=torch.long)
        ids = np.concatenate([np.frombuffer(row, dtype=np.int32) for row in rows]) if rows else np.zeros(0)
        return PackedTokens(torch.from_numpy(ids.astype(np.int64)), lengths, starts)
