"""What the exports of annotation tools share: answers that a person gave in one form about one or more texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._label_map import Code, Codes
from rlhf_lightning.feedback.format._scale import Scale
from rlhf_lightning.feedback.row import Row, kind_of
from rlhf_lightning.flow import Prompt, Rating, SpanLabel, Thumbs

Worth = Annotated[float, Field(ge=-1, le=1)]
"""How good a stretch of a text is: -1 bad to 1 good."""


class Answers:
    """Answers as judgements, by a format's settings.

    Args:
        option: the format, for messages.
        prompt, response: the fields of a task with the prompt, or None, and with the text that questions are about.
        texts: for a question about another text than `response`, the field with that text.
        scale: [lowest, highest] of the ratings.
        up, down: the choices that are thumbs up, and thumbs down.
        spans: for each label of a stretch, how good it is, -1 bad to 1 good.

    Raises:
        ConfigError: a scale that isn't lowest, highest, or a choice that is up and down.
    """

    def __init__(
        self,
        option: str,
        prompt: str | None,
        response: str,
        texts: Mapping[str, str] | None,
        scale: tuple[float, float] | None,
        up: tuple[Code, ...],
        down: tuple[Code, ...],
        spans: Mapping[str, float] | None,
    ) -> None:
        self.option, self.prompt, self.response, self.texts, self.spans = option, prompt, response, texts or {}, spans or {}
        self.scale = Scale(option, scale, None, False)
        self.thumb = Codes(option, {"up": (up, True), "down": (down, False)})

    def asked(self, task: Row) -> Prompt:
        """The task's prompt."""
        return prompt_of(task, self.prompt)

    def text(self, task: Row, question: str) -> str:
        """The text that a question is about."""
        return response_of(task, self.texts.get(question, self.response), self.asked(task))

    def rating(self, task: Row, value: Any, name: str, aspect: str | None) -> Rating:
        ends = self.scale.of(task)
        return Rating(value=self.scale.number(value, name, ends), scale=ends, aspect=aspect)

    def thumbs(self, value: Any, name: str) -> Thumbs:
        return Thumbs(up=self.thumb(value, name))

    def span(self, stretch: Row, label: Any, text: str) -> SpanLabel:
        """A labelled stretch of the text, from `start` to `end` in characters.

        Where the stretch's own text is there too it must be what stands there; if it isn't, the places are read as those of a
        browser, which counts a character beyond U+FFFF (an emoji) twice.
        """
        if not isinstance(label, str) or label not in self.spans:
            known = ", ".join(self.spans) or "none"
            setting = f"feedback_format.{self.option}.spans"
            raise DataError(f"{stretch.where}label {kind_of(label)} has no value: known are {known}; add `{setting}={{LABEL: -1}}`")
        start, end = self.stretch(stretch, text)
        return SpanLabel(start=start, end=end, value=self.spans[label], label=label)

    def stretch(self, stretch: Row, text: str) -> tuple[int, int]:
        """Where a stretch of the text starts and ends; see `span`."""
        start, end = (_place(stretch, name) for name in ("start", "end"))
        said = stretch.get("text")
        if isinstance(said, str) and text[start:end] != said:
            units = text.encode("utf-16-le")
            try:
                before, inside = units[: 2 * start].decode("utf-16-le"), units[2 * start : 2 * end].decode("utf-16-le")
            except UnicodeDecodeError:
                inside = None
            if inside != said:
                raise DataError(f"{stretch.where}text is not what stands in the response from {start} to {end}")
            start, end = len(before), len(before) + len(inside)
        if not start < end <= len(text):
            raise DataError(f"{stretch.where}start {start} to end {end} is no stretch of the response of {len(text)} characters")
        return start, end


def listed(row: Row, name: str) -> list[Any]:
    """A list that may be empty; an absent or null one is."""
    value = row.get(name)
    if value is not None and not isinstance(value, list):
        raise DataError(f"{row.where}{name} must be a list, not {kind_of(value)}")
    return value or []


def _place(stretch: Row, name: str) -> int:
    value = stretch.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"{stretch.where}{name} must be a whole number of at least 0, not {kind_of(value)}")
    return value
