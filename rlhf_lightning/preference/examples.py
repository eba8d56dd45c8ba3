"""The comparisons or thumbs that a preference loss learns from, as rows of a table of texts.

Shapes: J judgements, U distinct texts of a batch.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rlhf_lightning.feedback.grouping import group_loader
from rlhf_lightning.feedback.judgements import Judged, Judgements, PromptResponse, judgement_kind, prompt_number
from rlhf_lightning.flow import Ranking, Thumbs
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.reward.evaluation.comparisons import weighted_comparisons

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


GROUPS_IN_BATCH = 4
"""Least number of groups in a batch: a prompt with more judgements is split, so that a batch has several prompts."""
COMPARING = ("rating", "pair", "ranking", "edit")


@dataclass(frozen=True)
class Examples:
    """J judgements of texts of a table.

    Attributes:
        rows: [J] each, rows in the table: "chosen" and "rejected" of pairs; of thumbs "judged", and "mismatched", the same prompt with
            the response to another one.
        weight: [J].
        prompt: [J] the prompt's number, or the text's if judgements are independent by text.
        up: [J] 1 or 0, for thumbs.
        left_out: number of judgements with a text that is too long.
    """

    rows: dict[str, np.ndarray]
    weight: np.ndarray
    prompt: np.ndarray
    up: np.ndarray | None = None
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.weight)

    def text_rows(self) -> np.ndarray:
        """The rows of all texts, each once."""
        return np.unique(np.concatenate(list(self.rows.values())))


@dataclass(frozen=True)
class PreferenceBatch:
    """J judgements of U distinct texts.

    Attributes:
        tokens: the U texts.
        text_rows: [U] their rows in the table.
        index: [J] each, into the U texts: "chosen" and "rejected", or "judged".
        weight: [J]. up: [J] thumbs, else None.
        mismatched, mismatched_rows: prompts with responses to other prompts, for thumbs.
    """

    tokens: PackedTokens
    text_rows: Tensor
    index: dict[str, Tensor]
    weight: Tensor
    up: Tensor | None = None
    mismatched: PackedTokens | None = None
    mismatched_rows: Tensor | None = None

    def blank(self) -> PreferenceBatch:
        """This batch with weight 0."""
        return dataclasses.replace(self, weight=torch.zeros_like(self.weight))

    def to(self, device: torch.device | str) -> PreferenceBatch:
        index = {name: value.to(device) for name, value in self.index.items()}
        rest = (self.up, self.mismatched, self.mismatched_rows)
        moved = [None if value is None else value.to(device) for value in rest]
        return PreferenceBatch(self.tokens.to(device), self.text_rows.to(device), index, self.weight.to(device), *moved)  # type: ignore[arg-type]


def compared_examples(judged: Judgements, table: TextTable, min_gap: float = 0.0) -> Examples:
    """Weight all comparisons that the feedback states, and add their texts to the table."""
    comparisons = list(weighted_comparisons(judged, min_gap))
    sides = {
        "chosen": [table.row_of((order.prompt, order.better)) for order, _ in comparisons],
        "rejected": [table.row_of((order.prompt, order.worse)) for order, _ in comparisons],
    }
    numbers = [prompt_number(order.better if judged.by_text else order.prompt) for order, _ in comparisons]
    return _fitting(sides, [weight for _, weight in comparisons], numbers)


def thumbed_examples(judged: Judgements, table: TextTable, from_pairs: bool, min_gap: float = 0.0, seed: int = 0) -> Examples:
    """All thumbs, with equal thumbs on a text merged into one of their total weight.

    Responses that a ranking calls all bad get a thumb down. Each thumb is matched with the response of another prompt's thumb, sampled by
    `seed`.

    Args:
        from_pairs: the sides of a comparison are thumbs of its weight, too.
    """
    weights: dict[tuple[PromptResponse, bool], float] = {}
    for text, up, weight in _thumbs(judged, from_pairs, min_gap):
        weights[text, up] = weights.get((text, up), 0.0) + weight
    texts = [text for text, _ in weights]
    others = _mismatched_responses(texts, seed)
    sides = {
        "judged": [table.row_of(text) for text in texts],
        "mismatched": [table.row_of((prompt, texts[other][1])) for (prompt, _), other in zip(texts, others, strict=True)],
    }
    thumbs = [float(up) for _, up in weights]
    numbers = [prompt_number(response if judged.by_text else prompt) for prompt, response in texts]
    return _fitting(sides, list(weights.values()), numbers, thumbs)


def _thumbs(judged: Judgements, from_pairs: bool, min_gap: float) -> Iterable[tuple[PromptResponse, bool, float]]:
    for record in judged:
        feedback = record.feedback
        if isinstance(feedback.judgement, Thumbs):
            yield (feedback.prompt, feedback.responses[0]), feedback.judgement.up, feedback.weight
        if isinstance(feedback.judgement, Ranking) and feedback.judgement.all_bad:
            yield from (((feedback.prompt, text), False, feedback.weight) for text in dict.fromkeys(feedback.responses))
    if from_pairs:
        for order, weight in weighted_comparisons(judged, min_gap):
            yield (order.prompt, order.better), True, weight
            yield (order.prompt, order.worse), False, weight


def _mismatched_responses(texts: Sequence[PromptResponse], seed: int) -> list[int]:
    """For each text the index of a text to another prompt; of a neighbour if there is a single prompt."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(texts)).tolist()
    matches = [0] * len(texts)
    for i, text in enumerate(order):
        following = (order[(i + step) % len(order)] for step in range(1, len(order)))
        matches[text] = next((other for other in following if texts[other][0] != texts[text][0]), order[(i + 1) % len(order)])
    return matches


def _fitting(sides: dict[str, list[int]], weight: list[float], prompt: list[int], up: list[float] | None = None) -> Examples:
    """Select the judgements whose texts are all in the table."""
    rows = {name: np.array(values, dtype=np.int64) for name, values in sides.items()}
    fits = np.ones(len(weight), dtype=bool)
    for values in rows.values():
        fits &= values != TOO_LONG
    numbers = np.array(prompt, dtype=np.uint64)
    thumbs = None if up is None else np.array(up)[fits]
    fitting_rows = {name: values[fits] for name, values in rows.items()}
    return Examples(fitting_rows, np.array(weight)[fits], numbers[fits], thumbs, int((~fits).sum()))


def count_unused(judged: Iterable[Judged], thumbs: bool, from_pairs: bool) -> dict[str, int]:
    """Count the judgements of each kind that the loss can't learn from."""
    learned = {*(("thumbs",) if thumbs else ()), *(COMPARING if from_pairs or not thumbs else ())}
    counts: dict[str, int] = {}
    for record in judged:
        feedback = record.feedback
        kind = judgement_kind(feedback)
        if kind not in learned and not (thumbs and isinstance(feedback.judgement, Ranking) and feedback.judgement.all_bad):
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def preference_loader(
    examples: Examples, table: TextTable, batch_size: int, seed: int, rank: int, world: int, micro_batch_size: int | None = None
) -> DataLoader[np.ndarray]:
    """Shuffled batches of about `batch_size` judgements, sharded over the processes.

    Judgements on one prompt are together, so that its responses are read once.
    """
    largest = max(1, batch_size // GROUPS_IN_BATCH)
    return group_loader(
        examples.prompt,
        largest,
        batch_size,
        (seed, rank, world),
        lambda rows: batch_of(examples, table, rows),
        PreferenceBatch.blank,
        micro_batch_size,
    )


def batch_of(examples: Examples, table: TextTable, indices: np.ndarray) -> PreferenceBatch:
    """Batch the judgements at these indices, with each of their texts once."""
    sides = {name: rows[indices] for name, rows in examples.rows.items() if name != "mismatched"}
    text_rows, inverse = np.unique(np.concatenate(list(sides.values())), return_inverse=True)
    index = {name: torch.from_numpy(part) for name, part in zip(sides, np.split(inverse, len(sides)), strict=True)}
    weight = torch.from_numpy(examples.weight[indices]).float()
    if examples.up is None:
        return PreferenceBatch(table.pack(text_rows), torch.from_numpy(text_rows), index, weight)
    up, others = torch.from_numpy(examples.up[indices]).float(), examples.rows["mismatched"][indices]
    return PreferenceBatch(
        table.pack(text_rows), torch.from_numpy(text_rows), index, weight, up, table.pack(others), torch.from_numpy(others)
    )
