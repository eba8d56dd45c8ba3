"""Rows with several responses in an order."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import About, models
from rlhf_lightning.feedback.format._ranks import places
from rlhf_lightning.feedback.row import Row, finite, kind_of, label
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.registry import register


@register("feedback_format", "ranking")
class RankingFormat:
    """A prompt and responses with places, lower is better and equal is a tie; or with scores, higher is better.

    Either `responses` is a list of texts beside a list of places, or a list of objects that hold a text and a place or score each.
    Only the order of places counts: [1, 3, 3] and [0, 1, 1] are the same, one winner and a tie, and are kept as the latter. A null
    leaves a response unranked; at least two must be ranked. Scores may be true and false where all are.

    A place or score that is a list, one number per rater, makes one ranking per rater; so does a path through a list of reviews
    ("reviews.overall_rank"). A rater with nothing but nulls has said nothing.

    Args:
        prompt: the field with the prompt, a text or a list of messages; null where the texts were ranked by themselves.
        responses: the field with the responses.
        ranks: the field with the list of places, where the responses are texts: ranks[i] is the place of responses[i].
        text_field, rank_field: in an object, its text and its place.
        score_field: in an object, its score; used in place of `rank_field` when given.
        rater_field: in an object, the list of its raters ("reviews.reviewer"), the same in each response of a row.
        model_field: in an object, who wrote it.
        annotator: optional field, who ranked. Lists of places or scores take a list of names, or rater0, rater1, ... without.
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
        self.inner, self.is_score = (rank_field, False) if score_field is None else (score_field, True)
        self.about = About(annotator)
        self.fields = self.about.fields | {name for name in (prompt, responses, ranks) if name is not None}
        self.looks_for = f"ranking looks for '{ranks}', or '{responses}' as objects with '{text_field}' and '{self.inner}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        given = row.get(self.responses)
        objects = isinstance(given, list) and any(isinstance(item, dict) for item in given)
        if row.get(self.ranks) is None and not objects:
            return None
        items = [
            row.inside(item if objects else {self.text_field: item}, f"{self.responses}[{i}]")
            for i, item in enumerate(row.items(self.responses))
        ]
        if objects and all(item.get(self.inner) is None for item in items):
            return None
        prompt = prompt_of(row, self.prompt)
        texts = tuple(response_of(item, self.text_field, prompt) for item in items)
        if len(texts) < 2:
            raise DataError(f"{self.responses} has one response; a ranking needs at least two")
        orders, several = self._of_objects(items) if objects else ([self._beside(row, len(items))], False)
        about = self._about(row, items, len(orders), several)
        written = models(item.label(self.model_field) for item in items)
        return [
            Feedback(prompt=prompt, responses=texts, judgement=Ranking(ranks=places(order)), **who | {"models": written})
            for order, who in zip(orders, about, strict=True)
            if not several or any(place is not None for place in order)
        ]

    def _beside(self, row: Row, count: int) -> list[float | None]:
        listed = row.items(self.ranks)
        if len(listed) != count:
            raise DataError(f"{self.ranks} has {len(listed)} places for {count} {self.responses}")
        return [_whole(place, f"{self.ranks}[{i}]") for i, place in enumerate(listed)]

    def _of_objects(self, items: list[Row]) -> tuple[list[list[float | None]], bool]:
        """Lower is better: one list for each rater, and whether each response has a list, one number per rater."""
        for item in items:
            if not item.has(self.inner):
                raise DataError(f"field '{item.where}{self.inner}' is missing, and other {self.responses} have it")
        several = any(isinstance(item.get(self.inner), list) for item in items)
        columns = [item.items(self.inner) if several else [item.get(self.inner)] for item in items]
        if len({len(column) for column in columns}) > 1:
            counts = [len(column) for column in columns]
            raise DataError(f"{self.inner} must have as many values in each of the {self.responses}, not {counts}")
        are_true = self.is_score and all(value is None or isinstance(value, bool) for column in columns for value in column)
        read = _whole if not self.is_score else _truth if are_true else _negated
        table = [
            [read(value, f"{item.where}{self.inner}" + f"[{i}]" * several) for i, value in enumerate(column)]
            for item, column in zip(items, columns, strict=True)
        ]
        return [list(order) for order in zip(*table, strict=True)], several

    def _about(self, row: Row, items: list[Row], count: int, several: bool) -> list[dict[str, Any]]:
        if self.rater_field is None:
            return self.about.each(row, count, self.responses) if several else [self.about(row)]
        named = [item.items(self.rater_field) if several else [item.get(self.rater_field)] for item in items]
        for item, raters in zip(items, named, strict=True):
            if raters != named[0]:
                raise DataError(f"{item.where}{self.rater_field} is {raters}, and the first response's raters are {named[0]}")
        if len(named[0]) != count:
            raise DataError(f"{items[0].where}{self.rater_field} has {len(named[0])} raters for {count} values of {self.inner}")
        names = [label(rater, f"{items[0].where}{self.rater_field}" + f"[{i}]" * several) for i, rater in enumerate(named[0])]
        return [self.about(row) | {"annotator": name} for name in names]


def _whole(place: Any, name: str) -> int | None:
    if place is not None and (not isinstance(place, int) or isinstance(place, bool)):
        raise DataError(f"{name} must be a whole number, not {kind_of(place)}")
    return place


def _negated(score: Any, name: str) -> float | None:
    return None if score is None else -finite(score, name)


def _truth(score: bool | None, name: str) -> float | None:
    return None if score is None else -float(score)
