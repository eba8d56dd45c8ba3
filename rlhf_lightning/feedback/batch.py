"""One batch for all kinds of feedback: each distinct response once, and the judgements that point at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import Judged, Text
from rlhf_lightning.feedback.standardise import comparisons, edit_spans, ranking_levels, unit_rating
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating, Spans, Thumbs
from rlhf_lightning.model.packing import PackedTokens

Row = Mapping[str, Any]


class Tokeniser(Protocol):
    """Makes tokens of texts."""

    def tokenise(self, texts: Sequence[Text]) -> PackedTokens:
        """One row of ids for each text."""
        ...

    def response_offsets(self, text: Text) -> tuple[int, list[tuple[int, int]]]:
        """Where the response's tokens begin in the text's row, and the characters [start, end) of the response that each stands for."""
        ...


NUMBERS = ("weight", "margin", "z_score", "unit", "up", "value")
"""The columns of numbers; the others hold indices."""


@dataclass(kw_only=True)
class Kind:
    """The judgements of one kind, as columns of equal length. What was judged is given by index into the batch's texts.

    Attributes:
        weight: how much each counts. annotator: index into `Judgements.annotators`, 0 unknown.
    """

    weight: Tensor
    annotator: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        """The columns of rows, each a mapping from column to value."""
        return cls(**{field.name: _column(field.name, [row[field.name] for row in rows]) for field in dataclasses.fields(cls)})

    def to(self, device: torch.device | str) -> Self:
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})


def _column(name: str, values: Sequence[Any]) -> Tensor:
    if name in ("items", "levels"):
        longest = max(map(len, values), default=0)
        padded = [[*row, *[-1] * (longest - len(row))] for row in values]
        return torch.tensor(padded, dtype=torch.long).reshape(len(padded), longest)
    return torch.tensor(values, dtype=torch.float32 if name in NUMBERS else torch.long)


@dataclass(kw_only=True)
class Pairs(Kind):
    """One text is better than another: pairs and edits. margin: by how much, in the source's units; 0 where it wasn't said."""

    better: Tensor
    worse: Tensor
    margin: Tensor


@dataclass(kw_only=True)
class Ties(Kind):
    """Two texts are equally good."""

    first: Tensor
    second: Tensor


@dataclass(kw_only=True)
class Orders(Kind):
    """Rankings of three or more. items: [R, K], -1 where a ranking is shorter. levels: [R, K] places, 0 best, equal for a tie, -1 for
    what was left unranked and where there is no item."""

    items: Tensor
    levels: Tensor


@dataclass(kw_only=True)
class Ratings(Kind):
    """Numbers given to texts. z_score: in standard deviations (`standardised`). unit: on their scale brought to 0..1. aspect: index into
    `Judgements.aspects`, 0 for the response as a whole."""

    item: Tensor
    z_score: Tensor
    unit: Tensor
    aspect: Tensor


@dataclass(kw_only=True)
class ThumbsGiven(Kind):
    """Thumbs up (1) or down (0)."""

    item: Tensor
    up: Tensor


@dataclass(kw_only=True)
class SpanLabels(Kind):
    """Stretches of texts that were marked. start, end: tokens of the text's row. value: -1 bad to 1 good."""

    item: Tensor
    start: Tensor
    end: Tensor
    value: Tensor


@dataclass(kw_only=True)
class JudgementBatch:
    """U distinct texts (prompt and response), as packed tokens, and what was said about them, by kind."""

    tokens: PackedTokens
    pairs: Pairs
    ties: Ties
    orders: Orders
    ratings: Ratings
    thumbs: ThumbsGiven
    spans: SpanLabels

    def __len__(self) -> int:
        """The number of judgements, marked stretches left aside."""
        return sum(map(len, (self.pairs, self.ties, self.orders, self.ratings, self.thumbs)))

    def blank(self) -> JudgementBatch:
        """The same, and none of it counts."""
        kinds = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "tokens"}
        weightless = {name: dataclasses.replace(kind, weight=torch.zeros_like(kind.weight)) for name, kind in kinds.items()}
        return JudgementBatch(tokens=self.tokens, **weightless)

    def to(self, device: torch.device | str) -> JudgementBatch:
        return JudgementBatch(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})


def collate(judged: Iterable[Judged], tokeniser: Tokeniser, *, spans: bool = False) -> JudgementBatch:
    """The records as one batch. A judgement without information (an approved text, a ranking all tied) adds nothing.

    Args:
        spans: also find the tokens of marked and of edited stretches, which costs a second tokenisation of their texts.

    Raises:
        ConfigError: `spans`, and the tokenizer doesn't say where its tokens stand in the text.
    """
    place: dict[Text, int] = {}
    said: dict[str, list[Row]] = {field.name: [] for field in dataclasses.fields(JudgementBatch) if field.name != "tokens"}
    marked: list[tuple[Feedback, list[int], Row]] = []
    for record in judged:
        feedback = record.feedback
        items = [place.setdefault((feedback.prompt, response), len(place)) for response in feedback.responses]
        who: Row = {"weight": feedback.weight, "annotator": record.annotator}
        _add(said, feedback, items, record, who)
        if spans and isinstance(feedback.judgement, Spans | Edit):
            marked.append((feedback, items, who))
    tokens = tokeniser.tokenise(list(place))
    for feedback, items, who in marked:
        said["spans"] += _span_rows(feedback, items, who, tokeniser)
    return JudgementBatch(
        tokens=tokens,
        pairs=Pairs.of(said["pairs"]),
        ties=Ties.of(said["ties"]),
        orders=Orders.of(said["orders"]),
        ratings=Ratings.of(said["ratings"]),
        thumbs=ThumbsGiven.of(said["thumbs"]),
        spans=SpanLabels.of(said["spans"]),
    )


def _add(said: Mapping[str, list[Row]], feedback: Feedback, items: list[int], record: Judged, who: Row) -> None:
    """What a record says, as rows of their kinds."""
    judgement = feedback.judgement
    if isinstance(judgement, Rating):
        value = {"z_score": record.z_score, "unit": unit_rating(judgement), "aspect": record.aspect}
        said["ratings"].append({**who, **value, "item": items[0]})
    elif isinstance(judgement, Thumbs):
        said["thumbs"].append({**who, "item": items[0], "up": float(judgement.up)})
    elif isinstance(judgement, Ranking | Edit):
        found = comparisons(feedback)
        if len(items) == 2 and found:
            better, worse = found[0]
            margin = judgement.margin if isinstance(judgement, Ranking) else None
            said["pairs"].append({**who, "better": items[better], "worse": items[worse], "margin": margin or 0.0})
        elif isinstance(judgement, Ranking) and found:
            said["orders"].append({**who, "items": items, "levels": _levels(judgement)})
        elif isinstance(judgement, Ranking) and len(set(items)) == 2 == len(items) and judgement.ranks[0] == judgement.ranks[1] is not None:
            said["ties"].append({**who, "first": items[0], "second": items[1]})
    if isinstance(judgement, Ranking) and judgement.all_bad:
        said["thumbs"].extend({**who, "item": item, "up": 0.0} for item in dict.fromkeys(items))


def _levels(ranking: Ranking) -> list[int]:
    place = {index: level for level, group in enumerate(ranking_levels(ranking)) for index in group}
    return [place.get(index, -1) for index in range(len(ranking.ranks))]


def _span_rows(feedback: Feedback, items: list[int], who: Row, tokeniser: Tokeniser) -> list[Row]:
    """The marked stretches by tokens; what an edit took out is bad, what it put in is good. They share the judgement's weight."""
    if isinstance(feedback.judgement, Spans):
        stretches = [(0, span.start, span.end, span.value) for span in feedback.judgement.spans]
    else:
        changes = edit_spans(*feedback.responses)
        stretches = [(0, change.start, change.end, -1.0) for change in changes if change.start < change.end]
        stretches += [(1, change.edited_start, change.edited_end, 1.0) for change in changes if change.edited_start < change.edited_end]
    offsets = {side: tokeniser.response_offsets((feedback.prompt, feedback.responses[side])) for side in {side for side, *_ in stretches}}
    found = []
    for side, start, end, value in stretches:
        first, places = offsets[side]
        inside = [i for i, (a, b) in enumerate(places) if a < end and b > start]
        if inside:
            found.append({**who, "item": items[side], "start": first + inside[0], "end": first + inside[-1] + 1, "value": value})
    return [{**row, "weight": row["weight"] / len(found)} for row in found]
