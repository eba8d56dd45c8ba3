"""Answers in the exports of annotation tools, read as judgements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._values import LabelMap, LabelValue, Scale
from rlhf_lightning.feedback.row import Row, describe_value, whole_number
from rlhf_lightning.flow import Prompt, Rating, SpanLabel, Thumbs


class AnswerReader:
    """Reads answers as judgements, by a format's settings.

    Args:
        option: the format, for messages.
        prompt, response: the fields of a task with the prompt (or None) and with the text to judge.
        texts: for a question about another text than `response`, the field with that text.
        scale: [lowest, highest] of the ratings.
        up, down: the choices that are thumbs up, and thumbs down.
        spans: for each label of a span, its value, -1 bad to 1 good.

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
        up: tuple[LabelValue, ...],
        down: tuple[LabelValue, ...],
        spans: Mapping[str, float] | None,
    ) -> None:
        self.option, self.prompt, self.response, self.texts, self.spans = option, prompt, response, texts or {}, spans or {}
        self.scale = Scale(option, scale, None, False)
        self.thumb_labels = LabelMap(option, {"up": (up, True), "down": (down, False)})

    def task_prompt(self, task: Row) -> Prompt:
        """The task's prompt."""
        return prompt_of(task, self.prompt)

    def text(self, task: Row, question: str) -> str:
        """The text that a question is about."""
        return response_of(task, self.texts.get(question, self.response), self.task_prompt(task))

    def rating(self, task: Row, value: Any, name: str, aspect: str | None) -> Rating:
        ends = self.scale.of(task)
        return Rating(value=self.scale.number(value, name, ends), scale=ends, aspect=aspect)

    def thumbs(self, value: Any, name: str) -> Thumbs:
        return Thumbs(up=self.thumb_labels(value, name))

    def span(self, mark: Row, label: Any, text: str) -> SpanLabel:
        """Read a labelled span of the text, from `start` to `end` in characters.

        If the mark repeats its text, it must match. Offsets that don't match are read as a browser's, in UTF-16 units: a
        character beyond U+FFFF (an emoji) counts twice.
        """
        if not isinstance(label, str) or label not in self.spans:
            labels = ", ".join(self.spans) or "none"
            setting = f"feedback_format.{self.option}.spans"
            raise DataError(f"{mark.where}label {describe_value(label)} has no value: known are {labels}; add `{setting}={{LABEL: -1}}`")
        start, end = self.offsets(mark, text)
        return SpanLabel(start=start, end=end, value=self.spans[label], label=label)

    def offsets(self, mark: Row, text: str) -> tuple[int, int]:
        """Return the start and end of a marked span of the text; see `span`."""
        start, end = (whole_number(mark.get(name), mark.where + name, 0) for name in ("start", "end"))
        mark_text = mark.get("text")
        if isinstance(mark_text, str) and text[start:end] != mark_text:
            units = text.encode("utf-16-le")
            try:
                before, quoted = units[: 2 * start].decode("utf-16-le"), units[2 * start : 2 * end].decode("utf-16-le")
            except UnicodeDecodeError:
                quoted = None
            if quoted != mark_text:
                raise DataError(f"{mark.where}text differs from the response's text from {start} to {end}")
            start, end = len(before), len(before) + len(quoted)
        if not start < end <= len(text):
            raise DataError(f"{mark.where}start {start} to end {end} is not a span of the response of {len(text)} characters")
        return start, end
