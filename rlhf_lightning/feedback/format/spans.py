"""Rows with a response and marked spans of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import ResponseFormat
from rlhf_lightning.feedback.format._values import SpanReader, SpanValue, Unclear
from rlhf_lightning.feedback.row import Row, describe_value, finite_number
from rlhf_lightning.flow import Feedback, SpanLabel, Spans
from rlhf_lightning.registry import register


@register("feedback_format", "spans")
@dataclass(kw_only=True)
class SpansFormat(ResponseFormat):
    """A prompt, a response and a list of marked spans, each with a value from -1 (bad) to 1 (good).

    A span is given by `start` and `end` (characters, end excluded) or by its text. An empty list is a response without
    marks. With `rater`, each rater's marks are one Feedback.

    Attributes:
        spans: the field with the marks.
        span: in a mark, the span's text. It must agree with `start` and `end`, if present.
        unclear: for a mark whose text is in the response several times or nowhere (null: something is missing):
            "refuse"; "first" takes the first occurrence, and leaves out absent ones; "drop" leaves out both.
        value: in a mark, the field with its value.
        values: numbers of values that are words: {Major: -1, Minor: -0.3}.
        label: optional field in a mark, its label.
        rater: optional field in a mark, who made it: a name, or k for "rater" + k, the k-th (from 0) of lists of ratings.
        raters: everyone who looked at each response, with `rater`: those without a mark then get an empty record.
    """

    spans: str = "spans"
    span: str = "span"
    unclear: Unclear = "refuse"
    value: str = "value"
    values: dict[str, SpanValue] | None = None
    label: str | None = "label"
    rater: str | None = None
    raters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.raters and self.rater is None:
            raise ConfigError("feedback_format.spans.raters needs feedback_format.spans.rater, the field with the author of a mark")
        self.span_reader = SpanReader("spans", self.span, self.unclear)
        self.declare(f"spans looks for '{self.spans}'", self.response, self.spans, models=[self.model])

    def __call__(self, row: Row) -> list[Feedback] | None:
        value = row.get(self.spans)
        if value is None:
            return None
        if not isinstance(value, list):
            raise DataError(f"{row.where}{self.spans} must be a list, not {describe_value(value)}")
        prompt = prompt_of(row, self.prompt)
        text, metadata = response_of(row, self.response, prompt), self.metadata(row)
        marks = [self._mark(row.inside(item, f"{self.spans}[{i}]"), text) for i, item in enumerate(value)]
        return [
            Feedback(prompt=prompt, responses=(text,), judgement=Spans(spans=spans), **(metadata | annotator))
            for annotator, spans in self._by_rater(marks)
        ]

    def _by_rater(self, marks: list[tuple[str | None, SpanLabel | None]]) -> list[tuple[dict[str, Any], tuple[SpanLabel, ...]]]:
        raters = list(dict.fromkeys([*self.raters, *(rater for rater, _ in marks)]))
        if self.rater is None or not raters:
            return [({}, tuple(mark for _, mark in marks if mark is not None))]
        return [({"annotator": name}, tuple(mark for rater, mark in marks if mark is not None and rater == name)) for name in raters]

    def _mark(self, mark: Row, text: str) -> tuple[str | None, SpanLabel | None]:
        rater = None if self.rater is None else self._rater(mark, self.rater)
        value, span = self._value(mark), self.span_reader(mark, text)
        if span is None:
            return rater, None
        return rater, SpanLabel(start=span[0], end=span[1], value=value, label=mark.label(self.label))

    def _rater(self, mark: Row, name: str) -> str:
        value = mark.get(name)
        rater = f"rater{value}" if isinstance(value, int) and not isinstance(value, bool) else mark.text(name)
        if self.raters and rater not in self.raters:
            raise DataError(f"{mark.where}{name} is {rater!r}, who is none of feedback_format.spans.raters: {', '.join(self.raters)}")
        return rater

    def _value(self, mark: Row) -> float:
        if self.values is not None:
            word = mark.text(self.value)
            if word not in self.values:
                words = ", ".join(self.values)
                raise DataError(f"{mark.where}{self.value} is {describe_value(word)}, none of feedback_format.spans.values: {words}")
            return self.values[word]
        value = mark.get(self.value)
        if isinstance(value, str):
            raise DataError(
                f"{mark.where}{self.value} is {describe_value(value)}; say what words are worth: "
                "feedback_format.spans.values={WORD:NUMBER}"
            )
        number = mark.number(self.value)
        if not -1 <= number <= 1:
            raise DataError(f"{mark.where}{self.value} is {finite_number(value, self.value):g}, off the scale -1 (bad) to 1 (good)")
        return number
