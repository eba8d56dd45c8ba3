"""Rows with a response and its edited version."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import ResponseFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Edit, Feedback
from rlhf_lightning.registry import register


@register("feedback_format", "edit")
@dataclass(kw_only=True)
class EditFormat(ResponseFormat):
    """A prompt, a response and its edited version.

    An edit that changes nothing is an approval: it stays an Edit of two equal texts, from which no comparison follows.

    Attributes:
        edited: the field with the edited text.
    """

    edited: str = "edit"

    def __post_init__(self) -> None:
        self.declare(f"edit looks for '{self.edited}'", self.response, self.edited, models=[self.model, None])

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get(self.edited) is None:
            return None
        prompt = prompt_of(row, self.prompt)
        texts = response_of(row, self.response, prompt), response_of(row, self.edited, prompt)
        return [Feedback(prompt=prompt, responses=texts, judgement=Edit(), **self.metadata(row))]
