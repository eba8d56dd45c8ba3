"""A better version of a response, with a live comparison of words."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from rlhf_lightning.collect.questions import ItemView, Question, require_text
from rlhf_lightning.flow import Edit, Feedback
from rlhf_lightning.registry import register


@register("collect_question", "edit")
class EditQuestion(Question):
    """Correct this response; an unchanged one is an approval.

    Args:
        max_characters: longest edited text.
        question: the text that the page asks.
    """

    page = "edit"

    def __init__(self, *, max_characters: PositiveInt = 100_000, question: str = "Correct this response where it needs it.") -> None:
        self.max_characters, self.title = max_characters, question

    def describe(self) -> dict[str, Any]:
        return {"max_characters": self.max_characters}

    def parse(self, value: Any, view: ItemView, index: int) -> str:
        text = require_text(value, max(self.max_characters, len(view.responses[index])))
        if not text.strip():
            raise ValueError("the edited response is blank: skip the item if it can't be corrected")
        return text

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        return [view.edit(Edit(), index, value)]
