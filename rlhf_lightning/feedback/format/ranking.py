"""Rows with ranked responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import RowFormat, response_models
from rlhf_lightning.feedback.format._order import names_of_response, ranks_of_choice, ranks_of_order
from rlhf_lightning.feedback.format._values import dense_ranks
from rlhf_lightning.feedback.row import Row, finite_number, label, whole_number
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_format", "ranking")
@dataclass(kw_only=True)
class RankingFormat(RowFormat):
    """A prompt and responses with ranks, scores or an order.

    Of ranks lower is better and equal is a tie, of scores higher is better, an order names the best first.
    Either `responses` is a list of texts, or of fields with a text each, and `ranks` a list of numbers or of fields, or `responses` is
    a list of objects with a text and a rank or score. Only the order of ranks counts: [1, 3, 3] and [0, 1, 1] are the same, one winner
    and a tie, and are kept as the latter. A null leaves a response unranked; at least two must be ranked. Scores may be true and
    false if all are.

    A rank or score that is a list, one number per rater, makes one ranking per rater; so does a path through a list of reviews
    ("reviews.overall_rank"). A rater with only nulls makes none.

    Attributes:
        responses: the field with the responses, or the fields with one each, as in a table; an empty one is no response.
        ranks: the field with the list of ranks, for responses that are texts: ranks[i] is the rank of responses[i]; or the
            fields with one rank each.
        ranks_are: what `ranks` holds: the place of each response ("places"), its score ("scores"), or names or numbers of the
            responses, best first ("order": "B > A = C", [2, 1, 3]; numbers count from 1, or from 0 where one is 0), or the best
            alone ("choice": its number from 0, its name or letter).
        text_field, rank_field: in an object, its text and its rank.
        score_field: in an object, its score; replaces `rank_field`.
        rater_field: in an object, the list of its raters ("reviews.reviewer"), the same in each response of a row.
        model_field: in an object, who wrote it.
        annotator: optional field, who ranked. Lists of ranks or scores take a list of names, or rater0, rater1, ... without.
    """

    responses: str | tuple[str, ...] = "responses"
    ranks: str | tuple[str, ...] = "ranking"
    ranks_are: Literal["places", "scores", "order", "choice"] = "places"
    text_field: str = "text"
    rank_field: str = "rank"
    score_field: str | None = None
    rater_field: str | None = None
    model_field: str | None = None

    def __post_init__(self) -> None:
        self.value_field, self.is_score = (self.rank_field, False) if self.score_field is None else (self.score_field, True)
        responses, ranks = self.responses, self.ranks
        self._columns = (responses,) if isinstance(responses, str) else responses
        self._rank_columns = (ranks,) if isinstance(ranks, str) else ranks
        if not isinstance(ranks, str) and (isinstance(responses, str) or len(ranks) != len(responses)):
            raise ConfigError(f"feedback_format.ranking.ranks={list(ranks)} needs as many fields in feedback_format.ranking.responses")
        names = ", ".join(f"'{name}'" for name in self._rank_columns)
        objects = f"'{self._columns[0]}' as objects with '{self.text_field}' and '{self.value_field}'"
        self.declare(f"ranking looks for {names}, or {objects}", *self._columns, *self._rank_columns)

    def __call__(self, row: Row) -> list[Feedback] | None:
        if not isinstance(self.responses, str):
            return self._from_columns(row, self.responses)
        value = row.get(self.responses)
        has_ranks = row.get(self._rank_columns[0]) is not None
        are_objects = isinstance(value, list) and any(isinstance(item, dict) for item in value)
        if not are_objects and not has_ranks:
            return None
        items = [
            row.inside(item if are_objects else {self.text_field: item}, f"{self.responses}[{i}]")
            for i, item in enumerate(row.items(self.responses))
        ]
        are_ranked = are_objects and any(item.get(self.value_field) is not None for item in items)
        if not are_ranked and not has_ranks:
            return None
        prompt = prompt_of(row, self.prompt)
        texts = tuple(response_of(item, self.text_field, prompt) for item in items)
        if len(texts) < 2:
            raise DataError(f"{self.responses} has one response; a ranking needs at least two")
        orders, per_rater = self._orders_from_objects(items) if are_ranked else ([self._ranks_from_list(row, texts)], False)
        metadata = self._metadata(row, items, len(orders), per_rater)
        model_names = response_models(item.label(self.model_field) for item in items)
        return [
            Feedback(prompt=prompt, responses=texts, judgement=Ranking(ranks=dense_ranks(order)), **fields | {"models": model_names})
            for order, fields in zip(orders, metadata, strict=True)
            if not per_rater or any(rank is not None for rank in order)
        ]

    def _from_columns(self, row: Row, columns: tuple[str, ...]) -> list[Feedback] | None:
        """Read a table's row: a field for each response, and one for each rank or for all of them."""
        if all(row.get(name) is None for name in self._rank_columns):
            return None
        present = [i for i, name in enumerate(columns) if row.get(name) is not None]
        prompt = prompt_of(row, self.prompt)
        texts = tuple(response_of(row, columns[i], prompt) for i in present)
        if len(texts) < 2:
            raise DataError(f"there are {len(texts)} of {', '.join(columns)}; a ranking needs at least two")
        if isinstance(self.ranks, str):
            names = [columns[i].split(".")[-1] for i in present]
            order = self._ranks_from_list(row, texts, [(name, re.split(r"[\s_.-]+", name)[-1]) for name in names])
        else:
            order = [self._parse(row.get(self.ranks[i]), f"{row.where}{self.ranks[i]}") for i in present]
        return [Feedback(prompt=prompt, responses=texts, judgement=Ranking(ranks=dense_ranks(order)), **self.metadata(row))]

    def _ranks_from_list(self, row: Row, texts: Sequence[str], names: Sequence[tuple[str, ...]] = ()) -> list[float | None]:
        (field,) = self._rank_columns
        if self.ranks_are in ("order", "choice"):
            called = [names_of_response(i, *name) for i, name in enumerate(names or [(text.strip(),) for text in texts])]
            return [*(ranks_of_order if self.ranks_are == "order" else ranks_of_choice)(row.get(field), called, field)]
        ranks = row.items(field)
        if len(ranks) != len(texts):
            raise DataError(f"{field} has {len(ranks)} places for {len(texts)} {', '.join(self._columns)}")
        return [self._parse(rank, f"{field}[{i}]") for i, rank in enumerate(ranks)]

    def _parse(self, value: Any, name: str) -> float | None:
        return (_negate if self.ranks_are == "scores" else _integer)(value, name)

    def _orders_from_objects(self, items: list[Row]) -> tuple[list[list[float | None]], bool]:
        """Return the numbers of each rater (lower is better), and whether there are several raters."""
        for item in items:
            if not item.has(self.value_field):
                raise DataError(f"field '{item.where}{self.value_field}' is missing, and other {self.responses} have it")
        per_rater = any(isinstance(item.get(self.value_field), list) for item in items)
        columns = [item.items(self.value_field) if per_rater else [item.get(self.value_field)] for item in items]
        if len({len(column) for column in columns}) > 1:
            counts = [len(column) for column in columns]
            raise DataError(f"{self.value_field} must have as many values in each of the {self.responses}, not {counts}")
        are_booleans = self.is_score and all(value is None or isinstance(value, bool) for column in columns for value in column)
        parse = _integer if not self.is_score else _negate_bool if are_booleans else _negate
        table = [
            [parse(value, f"{item.where}{self.value_field}" + f"[{i}]" * per_rater) for i, value in enumerate(column)]
            for item, column in zip(items, columns, strict=True)
        ]
        return [list(order) for order in zip(*table, strict=True)], per_rater

    def _metadata(self, row: Row, items: list[Row], count: int, per_rater: bool) -> list[dict[str, Any]]:
        if self.rater_field is None:
            return self.metadata.per_annotator(row, count, self._columns[0]) if per_rater else [self.metadata(row)]
        raters_by_item = [item.items(self.rater_field) if per_rater else [item.get(self.rater_field)] for item in items]
        for item, raters in zip(items, raters_by_item, strict=True):
            if raters != raters_by_item[0]:
                raise DataError(f"{item.where}{self.rater_field} is {raters}, and the first response's raters are {raters_by_item[0]}")
        if len(raters_by_item[0]) != count:
            count_read = f"{items[0].where}{self.rater_field} has {len(raters_by_item[0])} raters"
            raise DataError(f"{count_read} for {count} values of {self.value_field}")
        names = [label(rater, f"{items[0].where}{self.rater_field}" + f"[{i}]" * per_rater) for i, rater in enumerate(raters_by_item[0])]
        return [self.metadata(row) | {"annotator": name} for name in names]


def _integer(rank: Any, name: str) -> int | None:
    if isinstance(rank, float) and rank.is_integer():
        return int(rank)
    return None if rank is None else whole_number(rank, name)


def _negate(score: Any, name: str) -> float | None:
    return None if score is None else -finite_number(score, name)


def _negate_bool(score: bool | None, name: str) -> float | None:
    return None if score is None else -float(score)
