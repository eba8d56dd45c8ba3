"""A table of distinct texts as token ids, each tokenised once for all its judgements."""

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

TOO_LONG = -1
"""The row of a text longer than max_length."""


class TextTable:
    """Token ids of distinct texts by row, 4 bytes a token, without the texts longer than max_length.

    Such a text isn't cut, since its response would then seem to end there.

    Attributes:
        too_long: number of distinct texts that are longer.
        rewritten: number of responses of which the chat template drops a part.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, stop_ids: Sequence[int] = ()) -> None:
        self.max_length = max_length
        self._rows = TextEncoder(tokenizer, InputFormat(), max_length, tuple(stop_ids))
        self._rows_by_text: dict[PromptResponse, int] = {}
        self._ids, self._ends, self._response_starts = array("i"), array("q", [0]), array("q")
        self.too_long = self.rewritten = 0

    def __len__(self) -> int:
        return len(self._response_starts)

    def row_of(self, text: PromptResponse) -> int:
        """The text's row, which is added if it is new; TOO_LONG for a text that is too long."""
        if text not in self._rows_by_text:
            row = self._rows.encode(text)
            self._rows_by_text[text] = TOO_LONG if row.is_cut else len(self)
            self.too_long += row.is_cut
            self.rewritten += row.is_rewritten
            if not row.is_cut:
                self._ids.extend(row.ids)
                self._ends.append(len(self._ids))
                self._response_starts.append(len(row.before))
        return self._rows_by_text[text]

    def length(self, row: int) -> int:
        """The text's number of tokens."""
        return self._ends[row + 1] - self._ends[row]

    def response_length(self, row: int) -> int:
        """The number of predicted tokens of the text's response."""
        return self.length(row) - max(1, self._response_starts[row])

    def pack(self, rows: Sequence[int] | np.ndarray) -> PackedTokens:
        """Pack the texts of these rows."""
        texts = [self._ids[self._ends[row] : self._ends[row + 1]] for row in rows]
        lengths = torch.tensor([len(ids) for ids in texts], dtype=torch.long)
        starts = torch.tensor([self._response_starts[row] for row in rows], dtype=torch.long)
        ids = np.concatenate([np.frombuffer(ids, dtype=np.int32) for ids in texts]) if texts else np.zeros(0)
        return PackedTokens(torch.from_numpy(ids.astype(np.int64)), lengths, starts)
