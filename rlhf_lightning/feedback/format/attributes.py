"""Rows with ratings of several aspects of a response."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import FiniteFloat

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import ResponseFormat
from rlhf_lightning.feedback.format._values import Scale
from rlhf_lightning.feedback.row import Row, describe_value
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.registry import register

SETTING = "feedback_format.attributes"


@register("feedback_format", "attributes")
@dataclass(kw_only=True)
class AttributesFormat(ResponseFormat):
    """A prompt, a response and ratings of several aspects: one record per aspect and rater.

    The ratings are one object, {aspect: number} or {aspect: [one number per rater]} or {aspect: {value_field: number}}, or, with
    `ratings=null`, fields of the row, as in NVIDIA's HelpSteer. A null skips an aspect; values off the scale are rejected.

    With `text_numbers`, ratings are whole numbers written as text ("4") and "N/A" leaves an aspect out, as in UltraFeedback.

    Attributes:
        ratings: the field with the object of ratings; null where each aspect is a field of the row.
        aspects: the aspects to read, required in each row; empty for all of the object.
        value_field: where an aspect holds an object, the field of it with the rating ("Rating").
        text_numbers: read text that is a whole number.
        scale: [lowest, highest] of every aspect that has none of its own.
        scales: {aspect: [lowest, highest]}.
        annotator: optional field, who rated: one name, or a list as long as the lists of the aspects. Without it a
            list's raters are rater0, rater1, ... by position.

    Raises:
        ConfigError: a scale upside down, or an aspect without one; `ratings=null` without aspects.
    """

    ratings: str | None = "ratings"
    aspects: tuple[str, ...] = ()
    value_field: str | None = None
    text_numbers: bool = False
    scale: tuple[FiniteFloat, FiniteFloat] | None = None
    scales: dict[str, tuple[FiniteFloat, FiniteFloat]] | None = None

    def __post_init__(self) -> None:
        for aspect, (low, high) in (self.scales or {}).items():
            if not low < high:
                raise ConfigError(f"{SETTING}.scales.{aspect} must be [lowest, highest], not [{low:g}, {high:g}]")
        if self.ratings is None and not self.aspects:
            raise ConfigError(f"{SETTING}.ratings=null needs the fields that hold the ratings: {SETTING}.aspects=[helpfulness,...]")
        self.rating_scale = Scale("attributes", self.scale, None, False)
        for aspect in self.aspects:
            self._ends(aspect, ConfigError)
        rating_fields = self.aspects if self.ratings is None else (self.ratings,)
        looks_for = "attributes looks for " + " or ".join(f"'{name}'" for name in rating_fields)
        self.declare(looks_for, self.response, *rating_fields, models=[self.model])

    def __call__(self, row: Row) -> list[Feedback] | None:
        inner = self._ratings(row)
        if inner is None:
            return None
        prompt = prompt_of(row, self.prompt)
        response = response_of(row, self.response, prompt)
        records = []
        for aspect in self.aspects or inner.data:
            value, name = inner.get(aspect), f"{inner.where}{aspect}"
            scale = self._ends(aspect, DataError)
            if isinstance(value, list):
                values = [(f"{name}[{i}]", item) for i, item in enumerate(inner.items(aspect))]
                metadata = self.metadata.per_annotator(row, len(values), name)
            else:
                values, metadata = [(name, value)] if value is not None else [], [self.metadata(row)] * (value is not None)
            for (where, item), fields in zip(values, metadata, strict=True):
                number = self._number(inner, item, where, scale)
                if number is not None:
                    judgement = Rating(value=number, scale=scale, aspect=aspect)
                    records.append(Feedback(prompt=prompt, responses=(response,), judgement=judgement, **fields))
        return records

    def _ratings(self, row: Row) -> Row | None:
        """Return the object with the aspects; None if the row has none of them."""
        if self.ratings is None:
            inner = row
        elif row.get(self.ratings) is None:
            return None
        else:
            inner = row.inside(row.get(self.ratings), self.ratings)
        if all(inner.get(aspect) is None for aspect in self.aspects or inner.data):
            return None
        for aspect in self.aspects:
            if not inner.has(aspect):
                inner.number(aspect)  # raises, naming the nearest field
        return inner

    def _number(self, inner: Row, value: Any, name: str, scale: tuple[float, float]) -> float | None:
        if self.value_field is not None:
            entry = inner.inside(value, name.removeprefix(inner.where))
            if not entry.has(self.value_field):
                entry.number(self.value_field)
            value, name = entry.get(self.value_field), entry.where + self.value_field
            if value is None:
                return None
        if self.text_numbers and isinstance(value, str):
            if value == "N/A":
                return None
            if not re.fullmatch(r"-?[0-9]{1,15}", value):
                raise DataError(f'{name} must be a whole number as text or "N/A", not {describe_value(value)}')
            value = int(value)
        return self.rating_scale.number(value, name, scale)

    def _ends(self, aspect: str, error: type[ConfigError | DataError]) -> tuple[float, float]:
        ends = (self.scales or {}).get(aspect, self.scale)
        if ends is None:
            raise error(
                f"no scale for {aspect!r}: add `{SETTING}.scale=[LOWEST,HIGHEST]` or `{SETTING}.scales={{{aspect}: [LOWEST,HIGHEST]}}`"
            )
        return ends
