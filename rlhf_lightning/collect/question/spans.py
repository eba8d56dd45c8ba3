"""Marked and labelled parts of a response."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.collect.questions import ItemView, Question, require_integer, require_keys
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Feedback, SpanLabel, Spans
from rlhf_lightning.registry import register

MAX_SPANS, MAX_LABELS = 200, 9
LABELS = {"error": -1.0, "good": 1.0}


@register("collect_question", "spans")
class SpansQuestion(Question):
    """Mark the parts that are wrong or very good; none is an answer too.

    Offsets count characters (code points).

    Args:
        labels: a value from -1, bad, to 1, good, for each label; keys 1 to 9 choose one; null: error and good.
        question: the text that the page asks.
    """

    page = "spans"

    def __init__(
        self,
        *,
        labels: dict[str, float] | None = None,
        question: str = "Mark what is wrong or very good.",
    ) -> None:
        labels = LABELS if labels is None else labels
        if not 1 <= len(labels) <= MAX_LABELS or not all(-1 <= value <= 1 for value in labels.values()):
            raise ConfigError(f"collect_question.spans.labels: one to {MAX_LABELS} labels with values from -1 to 1")
        self.labels, self.title = {str(name): float(value) for name, value in labels.items()}, question

    def describe(self) -> dict[str, Any]:
        return {"labels": [{"name": name, "value": value} for name, value in self.labels.items()]}

    def parse(self, value: Any, view: ItemView, index: int) -> list[dict[str, Any]]:
        if not isinstance(value, list) or len(value) > MAX_SPANS:
            raise ValueError(f"a list of at most {MAX_SPANS} spans was expected")
        length, spans = len(view.responses[index]), []
        for span in value:
            require_keys(span, ["start", "end", "label"])
            start = require_integer(span["start"], 0, max(0, length - 1))
            end = require_integer(span["end"], start + 1, length)
            if span["label"] not in self.labels:
                raise ValueError(f"the labels are {', '.join(self.labels)}")
            spans.append({"start": start, "end": end, "label": span["label"]})
        return sorted(spans, key=lambda span: (span["start"], span["end"]))

    def feedback(self, value: Any, view: ItemView, index: int) -> list[Feedback]:
        labels = tuple(SpanLabel(start=s["start"], end=s["end"], value=self.labels[s["label"]], label=s["label"]) for s in value)
        return [view.record(Spans(spans=labels), index)]
