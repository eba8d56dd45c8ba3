"""Rows with a response and its edited version."""

from __future__ import annotations

from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._metadata import JudgementMetadata
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Edit, Feedback
from rlhf_lightning.registry import register


@register("feedback_format", "edit")
class EditFormat:
    """A prompt, a response and its edited version.

    An edit that changes nothing is an approval: it stays an Edit of two equal texts, from which no comparison follows.

    Args:
        prompt: the field with the prompt, a text or a list of messages; null where the text was edited by itself.
        response, edited: the fields with the response and the edited text.
        model: optional field, who wrote the response.
        annotator: optional field, who edited.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        edited: str = "edit",
        model: str | None = "model",
        annotator: str | None = "annotator",
    ) -> None:
        self.prompt, self.response, self.edited = prompt, response, edited
        self.metadata = JudgementMetadata(annotator, [model, None])
        self.fields = self.metadata.fields | {name for name in (prompt, response, edited) if name is not None}
        self.looks_for = f"edit looks for '{edited}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get(self.edited) is None:
            return None
        prompt = prompt_of(row, self.prompt)
        texts = response_of(row, self.response, prompt), response_of(row, self.edited, prompt)
        return [Feedback(prompt=prompt, responses=texts, judgement=Edit(), **self.metadata(row))]
