"""Rows with a response and a written comment on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import ResponseFormat
from rlhf_lightning.feedback.format._values import SpanReader, Unclear
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Comment, Feedback
from rlhf_lightning.registry import register


@register("feedback_format", "comment")
@dataclass(kw_only=True)
class CommentFormat(ResponseFormat):
    """A prompt, a response and a written comment on it or on a span of it, or a list of comments.

    The span is given by `start` and `end` (characters, end excluded) or by its text, in the row or in each object of a list. Without
    a span the comment is on the whole response. An empty list gives nothing.

    Attributes:
        comment: the field with the comment, a text, or a list of texts and objects.
        text: in an object of a list, the comment's text.
        span: the span's text; null counts as absent. It must agree with `start` and `end`, if present.
        unclear: for a span whose text is in the response several times or nowhere: "refuse"; "first" takes the first occurrence, or
            the whole response if there is none; "drop" makes both comments on the whole response.
        empty: comments without words, such as a bare mark: "refuse" or "skip".
    """

    comment: str = "comment"
    text: str = "text"
    span: str = "span"
    unclear: Unclear = "refuse"
    empty: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        self.span_reader = SpanReader("comment", self.span, self.unclear)
        self.declare(f"comment looks for '{self.comment}'", self.response, self.comment, *self.span_reader.fields, models=[self.model])

    def __call__(self, row: Row) -> list[Feedback] | None:
        value = row.get(self.comment)
        if value is None:
            return None
        prompt = prompt_of(row, self.prompt)
        response, metadata = response_of(row, self.response, prompt), self.metadata(row)
        if isinstance(value, list):
            comments = [self._item(row, item, i, response) for i, item in enumerate(value)]
        else:
            comments = [self._comment(row, self.comment, response)]
        return [
            Feedback(prompt=prompt, responses=(response,), judgement=judgement, **metadata)
            for judgement in comments
            if judgement is not None
        ]

    def _item(self, row: Row, item: object, index: int, response: str) -> Comment | None:
        name = f"{self.comment}[{index}]"
        if isinstance(item, str):
            return self._comment(Row({name: item}, row.origin, where=row.where), name, response)
        return self._comment(row.inside(item, name), self.text, response)

    def _comment(self, row: Row, name: str, response: str) -> Comment | None:
        words = row.get(name)
        if isinstance(words, str) and not words.strip():
            if self.empty == "skip":
                return None
            raise DataError(f"{row.where}{name} has no words; feedback_format.comment.empty=skip leaves such comments out")
        words = row.text(name)
        start, end = (self.span_reader(row, response) if self.span_reader.is_in(row) else None) or (None, None)
        return Comment(text=words, start=start, end=end)
