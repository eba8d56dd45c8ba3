"""Rows with ranked responses."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import JudgementMetadata, response_models
from rlhf_lightning.feedback.format._ranks import dense_ranks
from rlhf_lightning.feedback.row import Row, describe_value, finite_number, label
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_format", "ranking")
class RankingFormat:
    """A prompt and responses with ranks (lower is better, equal is a tie) or scores (higher is better).

    Either `responses` is a list of texts and `ranks` a list of numbers, or `responses` is a list of objects with a text and a rank or
    score. Only the order of ranks counts: [1, 3, 3] and [0, 1, 1] are the same, one winner and a tie, and are kept as the latter. A
    null leaves a response unranked; at least two must be ranked. Scores may be true and false if all are.

    A rank or score that is a list, one number per rater, makes one ranking per rater; so does a path through a list of reviews
    ("reviews.overall_rank"). A rater with only nulls makes none.

    Args:
        prompt: the field with the prompt, a text or a list of messages; null for texts that were ranked by themselves.
        responses: the field with the responses.
        ranks: the field with the list of ranks, for responses that are texts: ranks[i] is the rank of responses[i].
        text_field, rank_field: in an object, its text and its rank.
        score_field: in an object, its score; replaces `rank_field`.
        rater_field: in an object, the list of its raters ("reviews.reviewer"), the same in each response of a row.
        model_field: in an object, who wrote it.
        annotator: optional field, who ranked. Lists of ranks or scores take a list of names, or rater0, rater1, ... without.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        responses: str = "responses",
        ranks: str = "ranking",
        text_field: str = "text",
        rank_field: str = "rank",
        score_field: str | None = None,
        rater_field: str | None = None,
        model_field: str | None = None,
        annotator: str | None = "annotator",
    ) -> None:
        self.prompt, self.responses, self.ranks, self.text_field = prompt, responses, ranks, text_field
        self.rater_field, self.model_field = rater_field, model_field
        self.value_field, self.is_score = (rank_field, False) if score_field is None else (score_field, True)
        self.metadata = JudgementMetadata(annotator)
        self.fields = self.metadata.fields | {name for name in (prompt, responses, ranks) if name is not None}
        self.looks_for = f"ranking looks for '{ranks}', or '{responses}' as objects with '{text_field}' and '{self.value_field}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        value = row.get(self.responses)
        are_objects = isinstance(value, list) and any(isinstance(item, dict) for item in value)
        if row.get(self.ranks) is None and not are_objects:
            return None
        items = [
            row.inside(item if are_objects else {self.text_field: item}, f"{self.responses}[{i}]")
            for i, item in enumerate(row.items(self.responses))
        ]
        if are_objects and all(item.get(self.value_field) is None for item in items):
            return None
        prompt = prompt_of(row, self.prompt)
        texts = tuple(response_of(item, self.text_field, prompt) for item in items)
        if len(texts) < 2:
            raise DataError(f"{self.responses} has one response; a ranking needs at least two")
        orders, per_rater = self._orders_from_objects(items) if are_objects else ([self._ranks_from_list(row, len(items))], False)
        metadata = self._metadata(row, items, len(orders), per_rater)
        model_names = response_models(item.label(self.model_field) for item in items)
        return [
            Feedback(prompt=prompt, responses=texts, judgement=Ranking(ranks=dense_ranks(order)), **fields | {"models": model_names})
            for order, fields in zip(orders, metadata, strict=True)
            if not per_rater or any(rank is not None for rank in order)
        ]

    def _ranks_from_list(self, row: Row, count: int) -> list[float | None]:
        ranks = row.items(self.ranks)
        if len(ranks) != count:
            raise DataError(f"{self.ranks} has {len(ranks)} places for {count} {self.responses}")
        return [_integer(rank, f"{self.ranks}[{i}]") for i, rank in enumerate(ranks)]

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
            return self.metadata.per_annotator(row, count, self.responses) if per_rater else [self.metadata(row)]
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
    if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool)):
        raise DataError(f"{name} must be a whole number, not {describe_value(rank)}")
    return rank


def _negate(score: Any, name: str) -> float | None:
    return None if score is None else -finite_number(score, name)


def _negate_bool(score: bool | None, name: str) -> float | None:
    return None if score is None else -float(score)
