"""Rows with a response and what a person made of it."""

from __future__ import annotations

from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Edit, Feedback
from rlhf_lightning.registry import register


@register("feedback_format", "edit")
class EditFormat:
    """A prompt, a response and its edited version.

    An edit that changes nothing is an approval: it stays an Edit of two equal texts, from which no comparison follows.

    Args:
        prompt, response, edited: the names of the fields.
        annotator: optional field, who edited.
    """

    def __init__(
        self, *, prompt: str = "prompt", response: str = "response", edited: str = "edit", annotator: str | None = "annotator"
    ) -> None:
        self.prompt, self.response, self.edited, self.annotator = prompt, response, edited, annotator
        self.fields = frozenset(name for name in (prompt, response, edited, annotator) if name is not None)
        self.looks_for = f"edit looks for '{edited}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get(self.edited) is None:
            return None
        texts = row.text(self.response), row.text(self.edited)
        who = row.label(self.annotator)
        return [Feedback(prompt=row.text(self.prompt), responses=texts, judgement=Edit(), annotator=who, origin=row.origin)]
