"""Tasks as Label Studio exports them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import FiniteFloat

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import response_of
from rlhf_lightning.feedback.format._answers import AnswerReader
from rlhf_lightning.feedback.format._metadata import parse_nonnegative, parse_time
from rlhf_lightning.feedback.format._values import LabelValue, SpanValue, dense_ranks
from rlhf_lightning.feedback.row import Row, describe_value, label, nonblank_text
from rlhf_lightning.flow import Comment, Edit, Feedback, Ranking, SpanLabel, Spans
from rlhf_lightning.registry import register

ControlKind = Literal["whole", "aspect", "edit", "comment", "ignore"]
SETTING = "feedback_format.label_studio"
UNRANKED_COLUMN = "_"
"""The ranker's column of items in no bucket."""


@register("feedback_format", "label_studio")
class LabelStudioFormat:
    """Tasks of Label Studio's JSON export: one judgement for each control that a person answered.

    Rating and Number are ratings, Pairwise a ranking of two, Ranker a ranking, Choices thumbs, Labels spans (one record with all of an
    annotation's), TextArea an edited text or a comment, as `controls` must state; a comment on a region keeps its offsets. Other
    controls are rejected unless ignored. Cancelled annotations, predictions, drafts and relations are not read; a task without
    annotations gives nothing. The annotator is the e-mail address if the export has it, else the id.

    Args:
        prompt: the field of the task's data with the prompt; null where the texts were judged by themselves.
        response: the field of the data that the controls are about.
        texts: {control's name: field} for controls about another field than `response`.
        pair: the fields of the data that Pairwise shows left and right.
        items, text_field: the list of the data that Ranker sorts, and the field of an item with the text; items have an `id`.
        buckets: the Ranker's buckets, best first; items in one bucket tie, items in none are unranked. Empty for a Ranker without
            buckets.
        controls: {control's name: whole, aspect, edit, comment or ignore}: a rating of the whole response (the default) or of the
            aspect that the control is called; what a TextArea holds; a control to leave out.
        scale: [lowest, highest] of the ratings; a Rating of five stars goes from 1 to 5.
        up, down: the choices that are thumbs up, and thumbs down.
        spans: {label: value of a span with it, -1 bad to 1 good}.

    Raises:
        ConfigError: a scale upside down, or a choice that is up and down.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        texts: dict[str, str] | None = None,
        pair: tuple[str, str] = ("answer1", "answer2"),
        items: str = "items",
        text_field: str = "body",
        buckets: tuple[str, ...] = (),
        controls: dict[str, ControlKind] | None = None,
        scale: tuple[FiniteFloat, FiniteFloat] | None = None,
        up: tuple[LabelValue, ...] = (),
        down: tuple[LabelValue, ...] = (),
        spans: dict[str, SpanValue] | None = None,
    ) -> None:
        self.answers = AnswerReader("label_studio", prompt, response, texts, scale, up, down, spans)
        self.pair, self.items, self.text_field, self.buckets, self.controls = pair, items, text_field, buckets, controls or {}
        self.readers = {
            "rating": self._rating,
            "number": self._rating,
            "pairwise": self._pairwise,
            "ranker": self._ranker,
            "choices": self._choices,
            "textarea": self._textarea,
        }
        self.fields = frozenset(["data", "annotations", "predictions", "drafts", "id", "project", "meta", "created_at", "updated_at"])
        self.looks_for = "label_studio looks for 'data' with 'annotations'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get("data") is None or row.get("annotations") is None:
            return None
        task = row.inside(row.get("data"), "data")
        annotations = [row.inside(item, f"annotations[{i}]") for i, item in enumerate(row.optional_items("annotations"))]
        return [record for annotation in annotations if not annotation.flag("was_cancelled") for record in self._records(task, annotation)]

    def _records(self, task: Row, annotation: Row) -> Iterator[Feedback]:
        metadata = {"prompt": self.answers.task_prompt(task), "origin": task.origin} | _metadata(annotation)
        spans: dict[str, list[SpanLabel]] = {}
        for i, result in enumerate(annotation.optional_items("result")):
            item = annotation.inside(result, f"result[{i}]")
            kind = item.text("type")
            control = item.text("from_name") if kind != "relation" else ""
            if kind == "relation" or self.controls.get(control) == "ignore":
                continue
            value = item.inside(item.get("value"), "value")
            if kind == "labels":
                text = self.answers.text(task, control)
                spans.setdefault(text, []).extend(self.answers.span(value, name, text) for name in value.items("labels"))
                continue
            if kind not in self.readers:
                raise DataError(
                    f"{item.where}type is {kind!r}, which is not read: leave it out by `{SETTING}.controls={{{control}: ignore}}`"
                )
            if "start" in value.data and kind != "textarea":
                raise DataError(f"{item.where}value judges a span by {kind}, which is not read: `{SETTING}.controls={{{control}: ignore}}`")
            text_written = self.readers[kind](task, value, control)
            if text_written is not None:
                yield Feedback(**text_written, **metadata)
        for text, labels in spans.items():
            yield Feedback(responses=(text,), judgement=Spans(spans=tuple(labels)), **metadata)

    def _rating(self, task: Row, value: Row, control: str) -> dict[str, Any]:
        aspect = control if self.controls.get(control) == "aspect" else None
        field = "rating" if value.has("rating") else "number"
        judgement = self.answers.rating(task, value.get(field), value.where + field, aspect)
        return {"responses": (self.answers.text(task, control),), "judgement": judgement}

    def _choices(self, task: Row, value: Row, control: str) -> dict[str, Any]:
        chosen = value.items("choices")
        if len(chosen) > 1:
            raise DataError(f"{value.where}choices has {len(chosen)} choices; thumbs are one")
        return {"responses": (self.answers.text(task, control),), "judgement": self.answers.thumbs(chosen[0], f"{value.where}choices")}

    def _pairwise(self, task: Row, value: Row, control: str) -> dict[str, Any]:
        selected = value.get("selected")
        if selected not in ("left", "right"):
            raise DataError(f"{value.where}selected must be left or right, not {describe_value(selected)}")
        task_prompt = self.answers.task_prompt(task)
        texts = tuple(response_of(task, name, task_prompt) for name in self.pair)
        return {"responses": texts, "judgement": Ranking(ranks=(0, 1) if selected == "left" else (1, 0)), "positions": (0, 1)}

    def _textarea(self, task: Row, value: Row, control: str) -> dict[str, Any]:
        meaning, text = self.controls.get(control), self.answers.text(task, control)
        written = value.items("text")
        if len(written) > 1:
            raise DataError(f"{value.where}text has {len(written)} texts; an edit or a comment is one (maxSubmissions=1)")
        text_written, is_region = nonblank_text(written[0], f"{value.where}text[0]"), "start" in value.data
        if meaning == "edit" and not is_region:
            return {"responses": (text, text_written), "judgement": Edit()}
        if meaning != "comment":
            either = "comment" if is_region else "edit}` or `{control: comment"
            raise DataError(f"the meaning of the TextArea {control!r} is unknown: add `{SETTING}.controls={{{control}: {either}}}`")
        start, end = self.answers.offsets(value, text) if is_region else (None, None)
        return {"responses": (text,), "judgement": Comment(text=text_written, start=start, end=end)}

    def _ranker(self, task: Row, value: Row, control: str) -> dict[str, Any] | None:
        columns = value.inside(value.get("ranker"), "ranker")
        items = [task.inside(item, f"{self.items}[{i}]") for i, item in enumerate(task.items(self.items))]
        ids = [label(item.get("id"), f"{item.where}id") for item in items]
        rank_of = self._ranks(columns, control)
        unknown = sorted(set(rank_of) - set(ids))
        if unknown:
            raise DataError(f"{columns.where}: {unknown[0]!r} is no id in {self.items}")
        if not rank_of:
            return None
        task_prompt = self.answers.task_prompt(task)
        texts = tuple(response_of(item, self.text_field, task_prompt) for item in items)
        return {"responses": texts, "judgement": Ranking(ranks=dense_ranks([rank_of.get(name) for name in ids]))}

    def _ranks(self, columns: Row, control: str) -> dict[str, int]:
        """Return the rank of each ranked item by its id."""
        if not self.buckets and (len(columns.data) != 1 or UNRANKED_COLUMN in columns.data):
            names = ", ".join(columns.data) or "none"
            raise DataError(f"the Ranker {control!r} has buckets ({names}): say their order by `{SETTING}.buckets=[BEST,...,WORST]`")
        if self.buckets and not set(self.buckets) & set(columns.data):
            raise DataError(
                f"{columns.where} has none of the buckets {', '.join(self.buckets)}, but {', '.join(columns.data) or 'nothing'}"
            )
        levels: dict[str, int] = {}
        for level, column in enumerate(self.buckets or columns.data):
            for i, item in enumerate(columns.optional_items(column)):
                name = label(item, f"{columns.where}{column}[{i}]")
                if name in levels:
                    raise DataError(f"{columns.where}{column}[{i}] is {name!r}, which has a place already")
                levels[name] = level if self.buckets else i
        return levels


def _metadata(annotation: Row) -> dict[str, Any]:
    """Read the annotation's annotator, time and seconds."""
    completed_by, name = annotation.get("completed_by"), "completed_by"
    if isinstance(completed_by, dict):
        given_by = annotation.inside(completed_by, name)
        annotator = given_by.label("email") or given_by.label("id")
    else:
        annotator = annotation.label(name)
    time, lead_time = annotation.get("created_at"), annotation.get("lead_time")
    return {
        "annotator": annotator,
        "time": None if time is None else parse_time(time, f"{annotation.where}created_at"),
        "seconds": None if lead_time is None else parse_nonnegative(lead_time, f"{annotation.where}lead_time"),
    }
