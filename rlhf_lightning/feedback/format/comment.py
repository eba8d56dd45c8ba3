"""Rows with a response and what a person wrote about it."""

from __future__ import annotations

from typing import Literal

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import About
from rlhf_lightning.feedback.format._span import Stretch, Unclear
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Comment, Feedback
from rlhf_lightning.registry import register


@register("feedback_format", "comment")
class CommentFormat:
    """A prompt, a response and a written comment on it or on a stretch of it, or a list of comments.

    The stretch is said by `start` and `end` (characters, the end not included) or by the text that stands there; beside the comment in
    the row, or in each object of a list. Without any of them the comment is on the whole response. An empty list gives nothing.

    Args:
        prompt: the field; null for texts that were judged by themselves.
        response, comment: the names of the fields; the comment a text, or a list of texts and objects.
        text: in an object of a list, the comment's text.
        span: the stretch's text; null is as if absent. Where `start` and `end` are there too they must agree.
        unclear: what is done where the stretch's text stands in the response several times or nowhere: "refuse"; "first" takes the first
            place, and where there is none the comment is on the whole response; "drop" makes both comments on the whole response.
        empty: comments without words, a stretch marked in silence: "refuse" or "skip".
        annotator: optional field, who wrote the comments.
        model: optional field, who wrote the response.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        comment: str = "comment",
        text: str = "text",
        span: str = "span",
        unclear: Unclear = "refuse",
        empty: Literal["refuse", "skip"] = "refuse",
        annotator: str | None = "annotator",
        model: str | None = "model",
    ) -> None:
        self.prompt, self.response, self.comment, self.text, self.empty = prompt, response, comment, text, empty
        self.stretch, self.about = Stretch("comment", span, unclear), About(annotator, [model])
        self.fields = self.about.fields | self.stretch.fields | {name for name in (prompt, response, comment) if name is not None}
        self.looks_for = f"comment looks for '{comment}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        given = row.get(self.comment)
        if given is None:
            return None
        prompt = prompt_of(row, self.prompt)
        response, about = response_of(row, self.response, prompt), self.about(row)
        if isinstance(given, list):
            found = [self._item(row, item, i, response) for i, item in enumerate(given)]
        else:
            found = [self._comment(row, self.comment, response)]
        return [
            Feedback(prompt=prompt, responses=(response,), judgement=judgement, **about) for judgement in found if judgement is not None
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
        start, end = (self.stretch(row, response) if self.stretch.is_in(row) else None) or (None, None)
        return Comment(text=words, start=start, end=end)
