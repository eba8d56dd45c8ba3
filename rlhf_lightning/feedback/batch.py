"""One batch for all kinds of feedback: the distinct responses, and judgements that refer to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import Judged, PromptResponse
from rlhf_lightning.feedback.standardise import comparisons, edit_spans, ranking_levels, unit_rating
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating, Spans, Thumbs
from rlhf_lightning.model.packing import PackedTokens

ColumnValues = Mapping[str, Any]


class Tokeniser(Protocol):
    """Tokenises pairs of prompt and response."""

    def tokenise(self, texts: Sequence[PromptResponse]) -> PackedTokens:
        """Return one row of ids for each text."""
        ...

    def response_offsets(self, text: PromptResponse) -> tuple[int, list[tuple[int, int]]]:
        """Return the index of the response's first token in its row, and tokens' characters [start, end)."""
        ...


NUMBERS = ("weight", "margin", "z_score", "unit", "up", "value")
"""Float columns; the others are indices."""


@dataclass(kw_only=True)
class JudgementColumns:
    """The judgements of one kind, as columns of equal length; texts are indices into the batch's texts.

    Attributes:
        weight: of each judgement. annotator: index into `Judgements.annotators`, 0 unknown.
    """

    weight: Tensor
    annotator: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    @classmethod
    def of(cls, rows: Sequence[ColumnValues]) -> Self:
        """Build the columns from rows, mappings from column to value."""
        return cls(**{field.name: _column(field.name, [values[field.name] for values in rows]) for field in dataclasses.fields(cls)})

    def to(self, device: torch.device | str) -> Self:
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})


def _column(name: str, values: Sequence[Any]) -> Tensor:
    if name in ("items", "levels"):
        longest = max(map(len, values), default=0)
        padded = [[*row, *[-1] * (longest - len(row))] for row in values]
        return torch.tensor(padded, dtype=torch.long).reshape(len(padded), longest)
    return torch.tensor(values, dtype=torch.float32 if name in NUMBERS else torch.long)


@dataclass(kw_only=True)
class Pairs(JudgementColumns):
    """Pairs and edits: one text is better than another. margin: in the source's units, 0 if unknown."""

    better: Tensor
    worse: Tensor
    margin: Tensor


@dataclass(kw_only=True)
class Ties(JudgementColumns):
    """Two texts are equally good."""

    first: Tensor
    second: Tensor


@dataclass(kw_only=True)
class Orders(JudgementColumns):
    """Rankings of three or more.

    Attributes:
        items: [R, K] texts, padded with -1.
        levels: [R, K] ranks, 0 best, equal for a tie, -1 for unranked items and padding.
    """

    items: Tensor
    levels: Tensor


@dataclass(kw_only=True)
class Ratings(JudgementColumns):
    """Ratings of texts.

    Attributes:
        z_score: in standard deviations (`standardise`).
        unit: on 0..1.
        aspect: index into `Judgements.aspects`, 0 for the response as a whole.
    """

    item: Tensor
    z_score: Tensor
    unit: Tensor
    aspect: Tensor


@dataclass(kw_only=True)
class ThumbsLabels(JudgementColumns):
    """Thumbs up (1) or down (0)."""

    item: Tensor
    up: Tensor


@dataclass(kw_only=True)
class SpanLabels(JudgementColumns):
    """Marked spans of texts. start, end: tokens of the text's row. value: -1 bad to 1 good."""

    item: Tensor
    start: Tensor
    end: Tensor
    value: Tensor


@dataclass(kw_only=True)
class JudgementBatch:
    """U distinct texts (prompt and response) as packed tokens, and their judgements by kind."""

    tokens: PackedTokens
    pairs: Pairs
    ties: Ties
    orders: Orders
    ratings: Ratings
    thumbs: ThumbsLabels
    spans: SpanLabels

    def __len__(self) -> int:
        """Count the judgements, without marked spans."""
        return sum(map(len, (self.pairs, self.ties, self.orders, self.ratings, self.thumbs)))

    def blank(self) -> JudgementBatch:
        """Return the same batch with weights 0."""
        kinds = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "tokens"}
        weightless = {name: dataclasses.replace(kind, weight=torch.zeros_like(kind.weight)) for name, kind in kinds.items()}
        return JudgementBatch(tokens=self.tokens, **weightless)

    def to(self, device: torch.device | str) -> JudgementBatch:
        return JudgementBatch(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})


def collate(judged: Iterable[Judged], tokeniser: Tokeniser, *, spans: bool = False) -> JudgementBatch:
    """Collate records into one batch; those without information (an approval, ties only) add nothing.

    Args:
        spans: also find the tokens of marked and edited spans, by a second tokenisation of their texts.

    Raises:
        ConfigError: `spans` with a tokenizer without offsets.
    """
    index_of: dict[PromptResponse, int] = {}
    rows_by_kind: dict[str, list[ColumnValues]] = {field.name: [] for field in dataclasses.fields(JudgementBatch) if field.name != "tokens"}
    with_spans: list[tuple[Feedback, list[int], ColumnValues]] = []
    for record in judged:
        feedback = record.feedback
        items = [index_of.setdefault((feedback.prompt, response), len(index_of)) for response in feedback.responses]
        metadata: ColumnValues = {"weight": feedback.weight, "annotator": record.annotator}
        _add(rows_by_kind, feedback, items, record, metadata)
        if spans and isinstance(feedback.judgement, Spans | Edit):
            with_spans.append((feedback, items, metadata))
    tokens = tokeniser.tokenise(list(index_of))
    for feedback, items, metadata in with_spans:
        rows_by_kind["spans"] += _span_rows(feedback, items, metadata, tokeniser)
    return JudgementBatch(
        tokens=tokens,
        pairs=Pairs.of(rows_by_kind["pairs"]),
        ties=Ties.of(rows_by_kind["ties"]),
        orders=Orders.of(rows_by_kind["orders"]),
        ratings=Ratings.of(rows_by_kind["ratings"]),
        thumbs=ThumbsLabels.of(rows_by_kind["thumbs"]),
        spans=SpanLabels.of(rows_by_kind["spans"]),
    )


def _add(
    rows_by_kind: Mapping[str, list[ColumnValues]], feedback: Feedback, items: list[int], record: Judged, metadata: ColumnValues
) -> None:
    """Append a record's judgement to the rows of its kind."""
    judgement = feedback.judgement
    if isinstance(judgement, Rating):
        value = {"z_score": record.z_score, "unit": unit_rating(judgement), "aspect": record.aspect}
        rows_by_kind["ratings"].append({**metadata, **value, "item": items[0]})
    elif isinstance(judgement, Thumbs):
        rows_by_kind["thumbs"].append({**metadata, "item": items[0], "up": float(judgement.up)})
    elif isinstance(judgement, Ranking | Edit):
        pairs = comparisons(feedback)
        if len(items) == 2 and pairs:
            better, worse = pairs[0]
            margin = judgement.margin if isinstance(judgement, Ranking) else None
            rows_by_kind["pairs"].append({**metadata, "better": items[better], "worse": items[worse], "margin": margin or 0.0})
        elif isinstance(judgement, Ranking) and pairs:
            rows_by_kind["orders"].append({**metadata, "items": items, "levels": _levels(judgement)})
        elif isinstance(judgement, Ranking) and len(set(items)) == 2 == len(items) and judgement.ranks[0] == judgement.ranks[1] is not None:
            rows_by_kind["ties"].append({**metadata, "first": items[0], "second": items[1]})
    if isinstance(judgement, Ranking) and judgement.all_bad:
        rows_by_kind["thumbs"].extend({**metadata, "item": item, "up": 0.0} for item in dict.fromkeys(items))


def _levels(ranking: Ranking) -> list[int]:
    level_of = {index: level for level, group in enumerate(ranking_levels(ranking)) for index in group}
    return [level_of.get(index, -1) for index in range(len(ranking.ranks))]


def _span_rows(feedback: Feedback, items: list[int], metadata: ColumnValues, tokeniser: Tokeniser) -> list[ColumnValues]:
    """Return the tokens of marked spans, or of an edit's deletions (-1) and insertions (1)."""
    if isinstance(feedback.judgement, Spans):
        changes_by_side = [(0, span.start, span.end, span.value) for span in feedback.judgement.spans]
    else:
        changes = edit_spans(*feedback.responses)
        changes_by_side = [(0, change.start, change.end, -1.0) for change in changes if change.start < change.end]
        changes_by_side += [
            (1, change.edited_start, change.edited_end, 1.0) for change in changes if change.edited_start < change.edited_end
        ]
    offsets = {
        side: tokeniser.response_offsets((feedback.prompt, feedback.responses[side])) for side in {side for side, *_ in changes_by_side}
    }
    rows = []
    for side, start, end, value in changes_by_side:
        first, characters = offsets[side]
        inside = [i for i, (a, b) in enumerate(characters) if a < end and b > start]
        if inside:
            rows.append({**metadata, "item": items[side], "start": first + inside[0], "end": first + inside[-1] + 1, "value": value})
    return [{**row, "weight": row["weight"] / len(rows)} for row in rows]
