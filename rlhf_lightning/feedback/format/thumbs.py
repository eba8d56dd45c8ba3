"""Rows with a response and thumbs up or down."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.feedback.format._metadata import ExchangeFormat
from rlhf_lightning.feedback.format._values import LabelMap, LabelValue
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Thumbs
from rlhf_lightning.registry import register


@register("feedback_format", "thumbs")
@dataclass(kw_only=True)
class ThumbsFormat(ExchangeFormat):
    """A prompt, a response and thumbs up or down: true and false, or the values in the settings.

    TRL's unpaired preference rows are read with `response=completion`, plain and conversational.

    Attributes:
        label: the field with the thumb.
        up, down: the labels with this meaning: `up=[false] down=[true]` for a label such as "toxic". true is not 1.
        skip: the labels that judge nothing ("not sure").
    """

    label: str = "label"
    up: tuple[LabelValue, ...] = (True,)
    down: tuple[LabelValue, ...] = (False,)
    skip: tuple[LabelValue, ...] = ()

    def __post_init__(self) -> None:
        meanings = {"up": (self.up, True), "down": (self.down, False), "skip": (self.skip, None)}
        self.label_map: LabelMap[bool | None] = LabelMap("thumbs", meanings)
        self.declare_exchange(f"thumbs looks for '{self.label}'", self.label)

    def __call__(self, row: Row) -> list[Feedback] | None:
        value = row.get(self.label)
        if value is None:
            return None
        up = self.label_map(value, row.where + self.label)
        if up is None:
            return []
        prompt, response = self.exchange(row)
        return [Feedback(prompt=prompt, responses=(response,), judgement=Thumbs(up=up), **self.metadata(row))]
