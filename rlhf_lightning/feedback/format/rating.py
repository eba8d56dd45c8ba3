"""Rows with one or several ratings of a response."""

from __future__ import annotations

from typing import Any

from pydantic import FiniteFloat

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import exchange_of
from rlhf_lightning.feedback.format._metadata import JudgementMetadata
from rlhf_lightning.feedback.format._scale import Scale
from rlhf_lightning.feedback.row import Row, describe_value
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.registry import register


@register("feedback_format", "rating")
class RatingFormat:
    """A prompt, a response and its rating, or a list of ratings that makes one Feedback per rater.

    If a row has both, the list is read: the single number is mostly its mean. Ratings are finite numbers
    on a scale: text, true, false and numbers off the scale are rejected.

    Args:
        prompt: the field with the prompt, a text or a list of messages; null for texts that were rated by themselves.
        response: the field with the response.
        messages: the field with a chat that was rated as a unit, instead of prompt and response: its last answer is the response.
        rating, ratings: the fields with the rating, or the list of them. null switches one off.
        raters: fields that hold one person's rating each, named like the person, as in a table with a column per rater; an
            absent one is no rating. They replace rating, ratings and annotator.
        aspect: the rated aspect ("helpfulness"), kept in the record; null for the response as a whole.
        turn: optional field, index of the response in its dialogue, from 0.
        scale: [lowest, highest] of rows without their own.
        scale_field: optional field with a row's [lowest, highest], preferred to `scale`.
        integers_only: reject ratings that aren't whole numbers; by default fractions are allowed, as in means.
        words: numbers of ratings that are words: {poor: 1, good: 2}.
        model: optional field, who wrote the response.
        annotator: optional field, who rated: one name, or a list as long as the ratings. Without it a rating has no annotator, and
            those of a list have rater0, rater1, ... by position, not necessarily the same people in another row.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        messages: str | None = None,
        rating: str | None = "rating",
        ratings: str | None = "ratings",
        raters: tuple[str, ...] = (),
        aspect: str | None = None,
        turn: str | None = None,
        scale: tuple[FiniteFloat, FiniteFloat] | None = None,
        scale_field: str | None = "scale",
        integers_only: bool = False,
        words: dict[str, FiniteFloat] | None = None,
        model: str | None = "model",
        annotator: str | None = "annotator",
    ) -> None:
        self.prompt, self.response, self.messages, self.raters = prompt, response, messages, raters
        self.rating, self.ratings = (None, None) if raters else (rating, ratings)
        self.words = words or {}
        self.aspect, self.turn, self.scale = aspect, turn, Scale("rating", scale, scale_field, integers_only)
        self.metadata = JudgementMetadata(None if raters else annotator, [model])
        texts, values = (prompt, response) if messages is None else (messages,), (*raters, self.rating, self.ratings)
        self.fields = self.metadata.fields | {name for name in (*texts, *values, turn, scale_field) if name is not None}
        self.looks_for = "rating looks for " + " or ".join(f"'{name}'" for name in values if name is not None)

    def __call__(self, row: Row) -> list[Feedback] | None:
        values: list[tuple[str, Any]]
        if self.raters:
            values = [(name, row.get(name)) for name in self.raters if row.get(name) is not None]
            if not values:
                return [] if row.has(self.messages or self.response) else None
            metadata = [self.metadata(row) | {"annotator": name.rpartition(".")[2]} for name, _ in values]
        elif self.ratings is not None and row.get(self.ratings) is not None:
            values = [(f"{self.ratings}[{i}]", value) for i, value in enumerate(row.items(self.ratings))]
            metadata = self.metadata.per_annotator(row, len(values), self.ratings)
        elif self.rating is not None and row.get(self.rating) is not None:
            values, metadata = [(self.rating, row.get(self.rating))], [self.metadata(row)]
        else:
            return None
        scale, turn = self.scale.of(row), self._turn(row)
        prompt, response = exchange_of(row, self.prompt, self.response, self.messages)
        return [
            Feedback(
                prompt=prompt,
                responses=(response,),
                judgement=Rating(value=self.scale.number(self._number_of(value), name, scale), scale=scale, aspect=self.aspect, turn=turn),
                **fields,
            )
            for (name, value), fields in zip(values, metadata, strict=True)
        ]

    def _number_of(self, value: Any) -> Any:
        return self.words.get(value, value) if isinstance(value, str) else value

    def _turn(self, row: Row) -> int | None:
        value = row.get(self.turn)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise DataError(f"{row.where}{self.turn} must be a whole number from 0, not {describe_value(value)}")
        return value
