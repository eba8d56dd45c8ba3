"""Rows with a response and thumbs up or down."""

from __future__ import annotations

from rlhf_lightning.feedback.chat import prompt_of, response_of
from rlhf_lightning.feedback.format._label_map import LabelMap, LabelValue
from rlhf_lightning.feedback.format._metadata import JudgementMetadata
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Thumbs
from rlhf_lightning.registry import register


@register("feedback_format", "thumbs")
class ThumbsFormat:
    """A prompt, a response and thumbs up or down: true and false, or the values in the settings.

    TRL's unpaired preference rows are read with `response=completion`, plain and conversational.

    Args:
        prompt: the field; null for texts that were judged by themselves.
        response, label: the names of the fields.
        up, down: the labels with this meaning: `up=[false] down=[true]` for a label such as "toxic". true is not 1.
        annotator: optional field, who judged.
        model: optional field, who wrote the response.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        label: str = "label",
        up: tuple[LabelValue, ...] = (True,),
        down: tuple[LabelValue, ...] = (False,),
        annotator: str | None = "annotator",
        model: str | None = "model",
    ) -> None:
        self.prompt, self.response, self.label = prompt, response, label
        self.label_map = LabelMap("thumbs", {"up": (up, True), "down": (down, False)})
        self.metadata = JudgementMetadata(annotator, [model])
        self.fields = self.metadata.fields | {name for name in (prompt, response, label) if name is not None}
        self.looks_for = f"thumbs looks for '{label}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        value = row.get(self.label)
        if value is None:
            return None
        judgement = Thumbs(up=self.label_map(value, row.where + self.label))
        prompt = prompt_of(row, self.prompt)
        return [Feedback(prompt=prompt, responses=(response_of(row, self.response, prompt),), judgement=judgement, **self.metadata(row))]
