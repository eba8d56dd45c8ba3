"""Rows with a number, or one from each of several people, for a response."""

from __future__ import annotations

from typing import Any

from pydantic import FiniteFloat

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import Row, finite, kind_of, label
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.registry import register


@register("feedback_format", "rating")
class RatingFormat:
    """A prompt, a response and its rating, or a list of ratings that makes one Feedback per rater.

    Where a row has both, the list is read: it says what the single number, mostly its mean, is made of. Ratings are finite numbers
    on a scale: text, true and false are refused, and so is what lies off the scale.

    Args:
        prompt, response, rating, ratings: the names of the fields. null switches `rating` or `ratings` off.
        scale: [lowest, highest], for rows that don't state their own.
        scale_field: optional field with a row's own [lowest, highest], which comes before `scale`.
        whole: refuse ratings that aren't whole numbers; by default a fraction on the scale is fine, as means are.
        annotator: optional field, who rated: one name, or a list as long as the ratings. Without it a rating has no annotator, and
            those of a list have rater0, rater1, ... by position, which need not be the same people in another row.
    """

    def __init__(
        self,
        *,
        prompt: str = "prompt",
        response: str = "response",
        rating: str | None = "rating",
        ratings: str | None = "ratings",
        scale: tuple[FiniteFloat, FiniteFloat] | None = None,
        scale_field: str | None = "scale",
        whole: bool = False,
        annotator: str | None = "annotator",
    ) -> None:
        if scale is not None and not scale[0] < scale[1]:
            raise ConfigError(f"feedback_format.rating.scale must be [lowest, highest], not {list(scale)}")
        self.prompt, self.response, self.rating, self.ratings = prompt, response, rating, ratings
        self.scale, self.scale_field, self.whole, self.annotator = scale, scale_field, whole, annotator
        names = (prompt, response, rating, ratings, scale_field, annotator)
        self.fields = frozenset(name for name in names if name is not None)
        self.looks_for = "rating looks for " + " or ".join(f"'{name}'" for name in (rating, ratings) if name is not None)

    def __call__(self, row: Row) -> list[Feedback] | None:
        values: list[tuple[str, Any, str | None]]
        if self.ratings is not None and row.get(self.ratings) is not None:
            given = row.items(self.ratings)
            who = self._raters(row, len(given))
            values = [(f"{self.ratings}[{i}]", value, who[i]) for i, value in enumerate(given)]
        elif self.rating is not None and row.get(self.rating) is not None:
            values = [(self.rating, row.get(self.rating), row.label(self.annotator))]
        else:
            return None
        prompt, responses, scale = row.text(self.prompt), (row.text(self.response),), self._scale(row)
        return [
            Feedback(
                prompt=prompt,
                responses=responses,
                judgement=Rating(value=self._on_scale(value, name, scale), scale=scale),
                annotator=annotator,
                origin=row.origin,
            )
            for name, value, annotator in values
        ]

    def _on_scale(self, value: Any, name: str, scale: tuple[float, float]) -> float:
        number = finite(value, name)
        if not scale[0] <= number <= scale[1]:
            raise DataError(f"{name} is {number:g}, off the scale {scale[0]:g} to {scale[1]:g}")
        if self.whole and not number.is_integer():
            raise DataError(f"{name} is {number:g}, and feedback_format.rating.whole=true asks for whole numbers")
        return number

    def _scale(self, row: Row) -> tuple[float, float]:
        own = row.get(self.scale_field)
        if own is None:
            if self.scale is None:
                raise DataError("no scale: add `feedback_format.rating.scale=[LOWEST,HIGHEST]`, or a field 'scale' to each row")
            return self.scale
        if not isinstance(own, list) or len(own) != 2:
            raise DataError(f"{self.scale_field} must be a list [lowest, highest], not {kind_of(own)}")
        low, high = (finite(end, f"{self.scale_field}[{i}]") for i, end in enumerate(own))
        if not low < high:
            raise DataError(f"{self.scale_field} must be [lowest, highest], not [{low:g}, {high:g}]")
        return low, high

    def _raters(self, row: Row, count: int) -> list[str]:
        if self.annotator is None or row.get(self.annotator) is None:
            return [f"rater{i}" for i in range(count)]
        names = row.items(self.annotator)
        if len(names) != count:
            raise DataError(f"{self.annotator} has {len(names)} names for {count} {self.ratings}")
        return [label(name, f"{self.annotator}[{i}]") for i, name in enumerate(names)]
