"""Records as Argilla exports them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import FiniteFloat

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import response_of
from rlhf_lightning.feedback.format._answers import AnswerReader
from rlhf_lightning.feedback.format._values import LabelValue, SpanValue, dense_ranks
from rlhf_lightning.feedback.row import Row, describe_value, label, nonblank_text, whole_number
from rlhf_lightning.flow import Comment, Edit, Feedback, Ranking, Spans
from rlhf_lightning.registry import register

QuestionKind = Literal["rating", "aspect", "ranking", "thumbs", "edit", "comment", "spans", "ignore"]


@register("feedback_format", "argilla")
class ArgillaFormat:
    """Records of Argilla 2 (`records.to_json`, `to_list(flatten=False)`): one judgement per response.

    {"fields": {...}, "responses": {question: [{"value", "user_id"}]}}. The export lacks the kind of a question; `questions` states it
    for each question with responses. Suggestions are not read. Drafts and discarded responses are left out if the row has a
    status; otherwise filter by `response.status` before the export.

    A ranking is a list of names, best first (Argilla 2 doesn't keep ties), or of {"value", "rank"} (older exports do).

    Args:
        prompt: the field with the prompt, a text or a chat; null for texts that were judged by themselves.
        response: the field that the questions are about.
        questions: {question: kind}: rating, aspect (a rating of the aspect named by the question),
            ranking, thumbs, edit (the edited text), comment, spans or ignore.
        texts: {question: field} for questions about another field than `response`.
        ranked: {name in a ranking: field with the text}, for names that aren't the fields' own.
        scale: [lowest, highest] of the ratings.
        up, down: the labels that are thumbs up, and thumbs down.
        spans: {label: value of a span with it, -1 bad to 1 good}.

    Raises:
        ConfigError: ratings without a scale, a scale upside down, or a label that is up and down.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        questions: dict[str, QuestionKind] | None = None,
        texts: dict[str, str] | None = None,
        ranked: dict[str, str] | None = None,
        scale: tuple[FiniteFloat, FiniteFloat] | None = None,
        up: tuple[LabelValue, ...] = ("yes",),
        down: tuple[LabelValue, ...] = ("no",),
        spans: dict[str, SpanValue] | None = None,
    ) -> None:
        questions = questions or {}
        if scale is None and {"rating", "aspect"} & set(questions.values()):
            raise ConfigError("feedback_format.argilla.questions has ratings: add `feedback_format.argilla.scale=[LOWEST,HIGHEST]`")
        self.answers = AnswerReader("argilla", prompt, response, texts, scale, up, down, spans)
        self.questions, self.ranked = questions, ranked or {}
        self.fields = frozenset(["fields", "responses", "suggestions", "metadata", "vectors", "id", "_server_id"])
        self.looks_for = "argilla looks for 'fields' with 'responses'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get("fields") is None or not isinstance(row.get("responses"), dict):
            return None
        task, answer_row = row.inside(row.get("fields"), "fields"), row.inside(row.get("responses"), "responses")
        records = []
        for question in answer_row.data:
            responses = [answer_row.inside(item, f"{question}[{i}]") for i, item in enumerate(answer_row.optional_items(question))]
            if not responses or self.questions.get(question) == "ignore":
                continue
            if question not in self.questions:
                raise DataError(
                    f"{answer_row.where}{question}: the kind of its responses is unknown: add "
                    f"`feedback_format.argilla.questions={{{question}: rating}}`, or what else it is, or ignore"
                )
            for response in responses:
                if _is_submitted(response):
                    records += self._records(task, question, response)
        return records

    def _records(self, task: Row, question: str, response: Row) -> list[Feedback]:
        value, name = response.get("value"), f"{response.where}value"
        if value is None:
            raise DataError(f"{name} is null")
        meaning = self.questions[question]
        metadata: dict[str, Any] = {"prompt": self.answers.task_prompt(task), "annotator": response.label("user_id"), "origin": task.origin}
        if meaning == "ranking":
            return [Feedback(**self._ranking(task, response), **metadata)]
        text = self.answers.text(task, question)
        if meaning == "edit":
            return [Feedback(responses=(text, nonblank_text(value, name)), judgement=Edit(), **metadata)]
        judgement = self._judgement(task, question, response, text)
        return [Feedback(responses=(text,), judgement=judgement, **metadata)]

    def _judgement(self, task: Row, question: str, response: Row, text: str) -> Any:
        value, name = response.get("value"), f"{response.where}value"
        match self.questions[question]:
            case "rating" | "aspect" as meaning:
                return self.answers.rating(task, value, name, question if meaning == "aspect" else None)
            case "thumbs":
                return self.answers.thumbs(value, name)
            case "comment":
                return Comment(text=nonblank_text(value, name))
        marks = [response.inside(item, f"value[{i}]") for i, item in enumerate(response.optional_items("value"))]
        return Spans(spans=tuple(self.answers.span(mark, mark.get("label"), text) for mark in marks))

    def _ranking(self, task: Row, response: Row) -> dict[str, Any]:
        order: dict[str, int | None] = {}
        for i, item in enumerate(response.items("value")):
            where, rank = f"{response.where}value[{i}]", i
            if isinstance(item, dict):
                entry = response.inside(item, f"value[{i}]")
                item, rank = entry.get("value"), entry.get("rank")
            if rank is not None:
                whole_number(rank, f"{where}.rank")
            name = label(item, where)
            if name in order:
                raise DataError(f"{where} is {name!r}, which is in the ranking twice")
            order[name] = rank
        task_prompt = self.answers.task_prompt(task)
        texts = tuple(response_of(task, self.ranked.get(name, name), task_prompt) for name in order)
        return {"responses": texts, "judgement": Ranking(ranks=dense_ranks(list(order.values())))}


def _is_submitted(response: Row) -> bool:
    status = response.get("status")
    if status not in (None, "submitted", "draft", "discarded"):
        raise DataError(f"{response.where}status must be submitted, draft or discarded, not {describe_value(status)}")
    return status in (None, "submitted")
