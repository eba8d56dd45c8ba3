"""Rows with the steps of a response and a label of each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of
from rlhf_lightning.feedback.format._metadata import RowFormat, per_item
from rlhf_lightning.feedback.format._values import LabelMap, LabelValue
from rlhf_lightning.feedback.row import Row, nonblank_text
from rlhf_lightning.flow import Feedback, SpanLabel, Spans
from rlhf_lightning.registry import register


@register("feedback_format", "stepwise")
@dataclass(kw_only=True)
class StepwiseFormat(RowFormat):
    """A prompt, the steps of a response and a label for each: TRL's stepwise supervision.

    The response is the steps joined by the separator; each labelled step is a span of it, of value 1 (good), -1 (bad) or 0
    (neutral), without the separator. A step with a null label was not judged and is no span.

    Attributes:
        completions, labels: the fields with the list of steps, texts that aren't blank, and the list of their labels.
        good, bad, neutral: the labels with this meaning; `good=[1] neutral=[0] bad=[-1]` reads PRM800K's. true is not 1.
        separator: text between two steps; a newline, as in TRL's trainer.
        model: optional field, who wrote the response.
    """

    completions: str = "completions"
    labels: str = "labels"
    good: tuple[LabelValue, ...] = (True,)
    bad: tuple[LabelValue, ...] = (False,)
    neutral: tuple[LabelValue, ...] = ()
    separator: str = "\n"
    model: str | None = "model"

    def __post_init__(self) -> None:
        self.label_map = LabelMap("stepwise", {"good": (self.good, 1.0), "bad": (self.bad, -1.0), "neutral": (self.neutral, 0.0)})
        looks_for = f"stepwise looks for '{self.labels}' beside '{self.completions}'"
        self.declare(looks_for, self.completions, self.labels, models=[self.model])

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get(self.labels) is None:
            return None
        steps = [nonblank_text(step, f"{row.where}{self.completions}[{i}]") for i, step in enumerate(row.items(self.completions))]
        values = per_item(row, self.labels, len(steps), self.completions, self._value)
        if all(value is None for value in values):
            raise DataError(f"{row.where}{self.labels} has no label: each of its items is null")
        starts = accumulate((len(step) + len(self.separator) for step in steps), initial=0)
        spans = tuple(
            SpanLabel(start=start, end=start + len(step), value=value)
            for start, step, value in zip(starts, steps, values, strict=False)
            if value is not None
        )
        response, prompt = self.separator.join(steps), prompt_of(row, self.prompt)
        return [Feedback(prompt=prompt, responses=(response,), judgement=Spans(spans=spans), **self.metadata(row))]

    def _value(self, label: Any, name: str) -> float | None:
        return None if label is None else self.label_map(label, name)
