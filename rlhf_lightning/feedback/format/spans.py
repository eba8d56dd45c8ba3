"""Rows with a response of which stretches were marked."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import About
from rlhf_lightning.feedback.format._span import Stretch, Unclear, Worth
from rlhf_lightning.feedback.row import Row, finite, kind_of
from rlhf_lightning.flow import Feedback, SpanLabel, Spans
from rlhf_lightning.registry import register


@register("feedback_format", "spans")
class SpansFormat:
    """A prompt, a response and a list of its marked stretches, each with a value from -1 (bad) to 1 (good).

    A mark says where it stands by `start` and `end` (characters, the end not included) or by the text that stands there. An empty list
    is a response in which nothing was marked. With `rater`, each rater's marks are one Feedback.

    Args:
        prompt: the field; null for texts that were judged by themselves.
        response, spans: the names of the fields.
        span: in a mark, the stretch's text. Where `start` and `end` are there too they must agree.
        unclear: what is done with a mark whose text stands in the response several times or nowhere (null: something is missing):
            "refuse"; "first" takes the first place, and leaves out what stands nowhere; "drop" leaves out both.
        value: in a mark, the field with its value.
        values: what the values mean where they are words: {Major: -1, Minor: -0.3}.
        label: optional field in a mark, what was said about it.
        rater: optional field in a mark, who made it: a name, or k for "rater" + k, the k-th (from 0) of lists of ratings.
        raters: everyone who looked at each response, with `rater`: those without a mark then found nothing to mark.
        annotator: optional field, who judged.
        model: optional field, who wrote the response.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        spans: str = "spans",
        span: str = "span",
        unclear: Unclear = "refuse",
        value: str = "value",
        values: dict[str, Worth] | None = None,
        label: str | None = "label",
        rater: str | None = None,
        raters: tuple[str, ...] = (),
        annotator: str | None = "annotator",
        model: str | None = "model",
    ) -> None:
        if raters and rater is None:
            raise ConfigError("feedback_format.spans.raters needs feedback_format.spans.rater, the field that says who made a mark")
        self.prompt, self.response, self.spans, self.value, self.values = prompt, response, spans, value, values
        self.label, self.rater, self.raters = label, rater, raters
        self.stretch, self.about = Stretch("spans", span, unclear), About(annotator, [model])
        self.fields = self.about.fields | {name for name in (prompt, response, spans) if name is not None}
        self.looks_for = f"spans looks for '{spans}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        given = row.get(self.spans)
        if given is None:
            return None
        if not isinstance(given, list):
            raise DataError(f"{row.where}{self.spans} must be a list, not {kind_of(given)}")
        prompt = prompt_of(row, self.prompt)
        text, about = response_of(row, self.response, prompt), self.about(row)
        marks = [self._mark(row.inside(item, f"{self.spans}[{i}]"), text) for i, item in enumerate(given)]
        return [
            Feedback(prompt=prompt, responses=(text,), judgement=Spans(spans=spans), **(about | whose))
            for whose, spans in self._by_rater(marks)
        ]

    def _by_rater(self, marks: list[tuple[str | None, SpanLabel | None]]) -> list[tuple[dict[str, Any], tuple[SpanLabel, ...]]]:
        named = list(dict.fromkeys([*self.raters, *(who for who, _ in marks)]))
        if self.rater is None or not named:
            return [({}, tuple(mark for _, mark in marks if mark is not None))]
        return [({"annotator": name}, tuple(mark for who, mark in marks if mark is not None and who == name)) for name in named]

    def _mark(self, mark: Row, text: str) -> tuple[str | None, SpanLabel | None]:
        who = None if self.rater is None else self._rater(mark, self.rater)
        value, place = self._worth(mark), self.stretch(mark, text)
        if place is None:
            return who, None
        return who, SpanLabel(start=place[0], end=place[1], value=value, label=mark.label(self.label))

    def _rater(self, mark: Row, name: str) -> str:
        found = mark.get(name)
        who = f"rater{found}" if isinstance(found, int) and not isinstance(found, bool) else mark.text(name)
        if self.raters and who not in self.raters:
            raise DataError(f"{mark.where}{name} is {who!r}, who is none of feedback_format.spans.raters: {', '.join(self.raters)}")
        return who

    def _worth(self, mark: Row) -> float:
        if self.values is not None:
            word = mark.text(self.value)
            if word not in self.values:
                known = ", ".join(self.values)
                raise DataError(f"{mark.where}{self.value} is {kind_of(word)}, none of feedback_format.spans.values: {known}")
            return self.values[word]
        value = mark.get(self.value)
        if isinstance(value, str):
            raise DataError(
                f"{mark.where}{self.value} is {kind_of(value)}; say what words are worth: feedback_format.spans.values={{WORD:NUMBER}}"
            )
        number = mark.number(self.value)
        if not -1 <= number <= 1:
            raise DataError(f"{mark.where}{self.value} is {finite(value, self.value):g}, off the scale -1 (bad) to 1 (good)")
        return number
