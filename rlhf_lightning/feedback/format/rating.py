"""Rows with one or several ratings of a response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import FiniteFloat

from rlhf_lightning.feedback.format._metadata import ExchangeFormat
from rlhf_lightning.feedback.format._values import Scale
from rlhf_lightning.feedback.row import Row, whole_number
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.registry import register


@register("feedback_format", "rating")
@dataclass(kw_only=True)
class RatingFormat(ExchangeFormat):
    """A prompt, a response and its rating, or a list of ratings that makes one Feedback per rater.

    If a row has both, the list is read: the single number is mostly its mean. Ratings are finite numbers
    on a scale: text, true, false and numbers off the scale are rejected.

    Attributes:
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
        annotator: optional field, who rated: one name, or a list as long as the ratings. Without it a rating has no annotator, and
            those of a list have rater0, rater1, ... by position, not necessarily the same people in another row.
    """

    rating: str | None = "rating"
    ratings: str | None = "ratings"
    raters: tuple[str, ...] = ()
    aspect: str | None = None
    turn: str | None = None
    scale: tuple[FiniteFloat, FiniteFloat] | None = None
    scale_field: str | None = "scale"
    integers_only: bool = False
    words: dict[str, FiniteFloat] | None = None

    def __post_init__(self) -> None:
        if self.raters:
            self.rating = self.ratings = self.annotator = None
        self._scale = Scale("rating", self.scale, self.scale_field, self.integers_only)
        values = [name for name in (*self.raters, self.rating, self.ratings) if name is not None]
        looks_for = "rating looks for " + " or ".join(f"'{name}'" for name in values)
        self.declare_exchange(looks_for, *values, self.turn, self.scale_field)

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
        scale, turn = self._scale.of(row), self._turn(row)
        prompt, response = self.exchange(row)
        return [
            Feedback(
                prompt=prompt,
                responses=(response,),
                judgement=Rating(value=self._scale.number(self._number_of(value), name, scale), scale=scale, aspect=self.aspect, turn=turn),
                **fields,
            )
            for (name, value), fields in zip(values, metadata, strict=True)
        ]

    def _number_of(self, value: Any) -> Any:
        return self.words.get(value, value) if self.words and isinstance(value, str) else value

    def _turn(self, row: Row) -> int | None:
        value = row.get(self.turn)
        return None if value is None else whole_number(value, f"{row.where}{self.turn}", 0)
