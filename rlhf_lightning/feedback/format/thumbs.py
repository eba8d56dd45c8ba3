"""Rows with a response and thumbs up or down."""

from __future__ import annotations

from rlhf_lightning.feedback.chat import exchange_of
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
        messages: the field with a chat that was judged as a unit, instead of prompt and response: its last answer is the response.
        up, down: the labels with this meaning: `up=[false] down=[true]` for a label such as "toxic". true is not 1.
        skip: the labels that judge nothing ("not sure").
        annotator: optional field, who judged.
        model: optional field, who wrote the response.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        messages: str | None = None,
        label: str = "label",
        up: tuple[LabelValue, ...] = (True,),
        down: tuple[LabelValue, ...] = (False,),
        skip: tuple[LabelValue, ...] = (),
        annotator: str | None = "annotator",
        model: str | None = "model",
    ) -> None:
        self.prompt, self.response, self.messages, self.label = prompt, response, messages, label
        self.label_map: LabelMap[bool | None] = LabelMap("thumbs", {"up": (up, True), "down": (down, False), "skip": (skip, None)})
        self.metadata = JudgementMetadata(annotator, [model])
        texts = (prompt, response) if messages is None else (messages,)
        self.fields = self.metadata.fields | {name for name in (*texts, label) if name is not None}
        self.looks_for = f"thumbs looks for '{label}'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        value = row.get(self.label)
        if value is None:
            return None
        up = self.label_map(value, row.where + self.label)
        if up is None:
            return []
        prompt, response = exchange_of(row, self.prompt, self.response, self.messages)
        return [Feedback(prompt=prompt, responses=(response,), judgement=Thumbs(up=up), **self.metadata(row))]
