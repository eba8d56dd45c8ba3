"""Records as Argilla exports them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import FiniteFloat

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import response_of
from rlhf_lightning.feedback.format._answers import Answers, Worth, listed
from rlhf_lightning.feedback.format._label_map import Code
from rlhf_lightning.feedback.format._ranks import places
from rlhf_lightning.feedback.row import Row, filled, kind_of, label
from rlhf_lightning.flow import Comment, Edit, Feedback, Ranking, Spans
from rlhf_lightning.registry import register

Meaning = Literal["rating", "aspect", "ranking", "thumbs", "edit", "comment", "spans", "ignore"]


@register("feedback_format", "argilla")
class ArgillaFormat:
    """Records of Argilla 2, as `dataset.records.to_json` and `to_list(flatten=False)` export them: one judgement for each response.

    {"fields": {...}, "responses": {question: [{"value", "user_id"}]}}. The export doesn't say what kind of question was asked, so
    `questions` does, for each that has responses; suggestions are not read. Nor does it say whether a response was submitted: where a
    status is there, drafts and discarded ones are left out; filter the others by `response.status` before the export.

    A ranking is a list of names, best first, in which Argilla 2 doesn't keep ties, or of {"value", "rank"}, in which older exports do.

    Args:
        prompt: the field with the prompt, a text or a chat; null where the texts were judged by themselves.
        response: the field that the questions are about.
        questions: {question: what its responses are}: rating, aspect (a rating of the aspect that the question is called),
            ranking, thumbs, edit (the edited text), comment, spans or ignore.
        texts: {question: field} for questions about another field than `response`.
        ranked: {name in a ranking: field with the text}, for names that aren't the fields' own.
        scale: [lowest, highest] of the ratings.
        up, down: the labels that are thumbs up, and thumbs down.
        spans: {label: how good a stretch with it is, -1 bad to 1 good}.

    Raises:
        ConfigError: ratings without a scale, a scale upside down, or a label that is up and down.
    """

    def __init__(
        self,
        *,
        prompt: str | None = "prompt",
        response: str = "response",
        questions: dict[str, Meaning] | None = None,
        texts: dict[str, str] | None = None,
        ranked: dict[str, str] | None = None,
        scale: tuple[FiniteFloat, FiniteFloat] | None = None,
        up: tuple[Code, ...] = ("yes",),
        down: tuple[Code, ...] = ("no",),
        spans: dict[str, Worth] | None = None,
    ) -> None:
        questions = questions or {}
        if scale is None and {"rating", "aspect"} & set(questions.values()):
            raise ConfigError("feedback_format.argilla.questions has ratings: add `feedback_format.argilla.scale=[LOWEST,HIGHEST]`")
        self.answers = Answers("argilla", prompt, response, texts, scale, up, down, spans)
        self.questions, self.ranked = questions, ranked or {}
        self.fields = frozenset(["fields", "responses", "suggestions", "metadata", "vectors", "id", "_server_id"])
        self.looks_for = "argilla looks for 'fields' with 'responses'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get("fields") is None or not isinstance(row.get("responses"), dict):
            return None
        task, given = row.inside(row.get("fields"), "fields"), row.inside(row.get("responses"), "responses")
        found = []
        for question in given.data:
            responses = [given.inside(item, f"{question}[{i}]") for i, item in enumerate(listed(given, question))]
            if not responses or self.questions.get(question) == "ignore":
                continue
            if question not in self.questions:
                raise DataError(
                    f"{given.where}{question}: what its responses are is not said: add "
                    f"`feedback_format.argilla.questions={{{question}: rating}}`, or what else it is, or ignore"
                )
            for response in responses:
                if _is_submitted(response):
                    found += self._said(task, question, response)
        return found

    def _said(self, task: Row, question: str, response: Row) -> list[Feedback]:
        value, name = response.get("value"), f"{response.where}value"
        if value is None:
            raise DataError(f"{name} is null")
        meaning = self.questions[question]
        about: dict[str, Any] = {"prompt": self.answers.asked(task), "annotator": response.label("user_id"), "origin": task.origin}
        if meaning == "ranking":
            return [Feedback(**self._ranking(task, response), **about)]
        text = self.answers.text(task, question)
        if meaning == "edit":
            return [Feedback(responses=(text, filled(value, name)), judgement=Edit(), **about)]
        judgement = self._judgement(task, question, response, text)
        return [Feedback(responses=(text,), judgement=judgement, **about)]

    def _judgement(self, task: Row, question: str, response: Row, text: str) -> Any:
        value, name = response.get("value"), f"{response.where}value"
        match self.questions[question]:
            case "rating" | "aspect" as meaning:
                return self.answers.rating(task, value, name, question if meaning == "aspect" else None)
            case "thumbs":
                return self.answers.thumbs(value, name)
            case "comment":
                return Comment(text=filled(value, name))
        stretches = [response.inside(item, f"value[{i}]") for i, item in enumerate(listed(response, "value"))]
        return Spans(spans=tuple(self.answers.span(stretch, stretch.get("label"), text) for stretch in stretches))

    def _ranking(self, task: Row, response: Row) -> dict[str, Any]:
        order: dict[str, int | None] = {}
        for i, item in enumerate(response.items("value")):
            where, rank = f"{response.where}value[{i}]", i
            if isinstance(item, dict):
                held = response.inside(item, f"value[{i}]")
                item, rank = held.get("value"), held.get("rank")
            if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool)):
                raise DataError(f"{where}.rank must be a whole number, not {kind_of(rank)}")
            name = label(item, where)
            if name in order:
                raise DataError(f"{where} is {name!r}, which stands in the ranking twice")
            order[name] = rank
        asked = self.answers.asked(task)
        texts = tuple(response_of(task, self.ranked.get(name, name), asked) for name in order)
        return {"responses": texts, "judgement": Ranking(ranks=places(list(order.values())))}


def _is_submitted(response: Row) -> bool:
    status = response.get("status")
    if status not in (None, "submitted", "draft", "discarded"):
        raise DataError(f"{response.where}status must be submitted, draft or discarded, not {kind_of(status)}")
    return status in (None, "submitted")
