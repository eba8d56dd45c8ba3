"""A written comment on each response."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from rlhf_lightning.collect.questions import ItemView, Question, require_text
from rlhf_lightning.flow import Comment, Feedback
from rlhf_lightning.registry import register


@register("collect_question", "comment")
class CommentQuestion(Question):
    """A comment in words on each response.

    Args:
        required: a comment must be written.
        max_characters: longest comment.
        question: the text that the page asks.
    """

    page = "comment"

    def __init__(
        self, *, required: bool = False, max_characters: PositiveInt = 10_000, question: str = "What is good or bad about this response?"
    ) -> None:
        self.required, self.max_characters, self.title = required, max_characters, question

    def describe(self) -> dict[str, Any]:
        return {"max_characters": self.max_characters}

    def parse(self, value: Any, view: ItemView, index: int) -> str:
        text = require_text(value, self.max_characters)
        if self.required and not text.strip():
            raise ValueError("a comment was expected")
        return text

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        return [view.record(Comment(text=value), index)] if value.strip() else []
