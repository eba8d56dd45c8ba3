"""Items from a file: one row for each prompt with its responses."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_lightning.collect.answers import AnswerRefused, parse_steps
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.questions import ItemView, Question
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import prompt_of, responses_of
from rlhf_lightning.feedback.format.argilla import ArgillaFormat
from rlhf_lightning.feedback.format.label_studio import LabelStudioFormat
from rlhf_lightning.feedback.row import BadLine, Row, nonblank_text
from rlhf_lightning.feedback.strict_json import strict_json
from rlhf_lightning.flow import Prompt
from rlhf_lightning.registry import make

SOURCES = {".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv"}
NUMBERED = re.compile(r"(?:response|completion|answer)[_ ]?(?:[1-8]|[a-h])", re.IGNORECASE)
LISTS = ("responses", "completions", "items")
TEXT_FIELDS = ("body", "text", "content", "html")
"""Where an entry of a list that is an object has its text."""
PAIRS = ("chosen", "rejected")
MAX_RESPONSES = 8
TOOLS: dict[str, type[Any]] = {"label_studio": LabelStudioFormat, "argilla": ArgillaFormat}
JSON_COLUMNS = ("responses", "models", "gold")


def read_items(
    path: str,
    setting: str,
    questions: Mapping[str, Question],
    formats: Mapping[str, Any] | None = None,
    rename: Mapping[str, str] | None = None,
) -> Iterator[Item]:
    """The items of a JSONL, JSON or CSV file.

    A row has `prompt` (a text, or a list of messages) and its responses: a list `responses`, columns response_1, response_2 ...,
    `response` alone, or chosen and rejected as TRL names them; and, if it likes, `models` (a list), `source`, `priority`, and for a gold
    item `gold`, the expected answer of each question. In CSV the lists and `gold` are JSON. Label Studio's tasks have the same in `data`,
    Argilla's records in `fields`.

    Args:
        formats: those of label_studio and argilla read the judgements that such a file has, and say how its fields are called.
        rename: new names of fields by their old ones.

    Raises:
        ConfigError: a file of another kind. DataError: a row without what is needed, with its file and line.
    """
    kind = SOURCES.get(Path(path.removesuffix(".gz")).suffix.lower())
    if kind is None:
        raise ConfigError(f"{setting}={path}: a file .jsonl, .json or .csv was expected")
    for row in make("feedback_source", kind, {"path": path, **({"rename": dict(rename)} if rename else {})})():
        if isinstance(row, BadLine):
            raise DataError(f"{row.origin}: {row.reason}")
        try:
            yield _item(_with_json(row) if kind == "csv" else row, questions, formats or {})
        except (DataError, ValueError) as cause:
            raise DataError(f"{row.origin}: {cause}") from cause


def _with_json(row: Row) -> Row:
    """A table's row with the JSON and the number in its cells read."""
    data = dict(row.data)
    for name in (*JSON_COLUMNS, "priority"):
        try:
            if name in data:
                data[name] = strict_json(data[name].encode(), 0)
        except ValueError as cause:
            raise DataError(f'{name} is JSON in a table, such as {{"pairwise": {{"choice": "a"}}}} or ["x", "y"]: {cause}') from cause
    return replace(row, data=data)


def _item(row: Row, questions: Mapping[str, Question], formats: Mapping[str, Any]) -> Item:
    tool = "label_studio" if isinstance(row.get("data"), dict) else "argilla" if isinstance(row.get("fields"), dict) else ""
    form: Any = next((form for form in formats.values() if tool and type(form) is TOOLS[tool]), None)
    name = {"label_studio": "data", "argilla": "fields"}.get(tool, "")
    body = row.inside({**row.data, **row.data[name]}, name) if tool else row
    prompt, responses = _texts(body, form)
    if not 1 <= len(responses) <= MAX_RESPONSES:
        raise DataError(f"{len(responses)} responses; an item has 1 to {MAX_RESPONSES}")
    models = body.get("models")
    if models is not None and (not isinstance(models, list) or len(models) != len(responses)):
        raise DataError(f"models must be a list of {len(responses)} names, one for each response")
    gold = body.get("gold")
    judged, predictions = row.get({"label_studio": "annotations", "argilla": "responses"}.get(tool)), _predictions(row, tool)
    return Item(
        prompt=prompt,
        responses=responses,
        models=None if models is None else tuple(None if model is None else str(model) for model in models),
        source=body.label("source"),
        gold=None if gold is None else _gold(gold, ItemView(prompt, responses), questions),
        priority=body.number("priority") if body.get("priority") is not None else 0.0,
        judgements=tuple((form and form(row)) or ()),
        predictions=tuple((form and predictions and form(predictions)) or ()),
        has_unread=form is None and bool(judged or predictions),
    )


def _predictions(row: Row, tool: str) -> Row | None:
    """The row with the models' predictions in the place of the annotators' answers; None without any."""
    if tool == "label_studio" and row.get("predictions"):
        entries = [row.inside(entry, f"predictions[{i}]").data for i, entry in enumerate(row.items("predictions"))]
        annotations = [{"completed_by": entry.get("model_version"), "result": entry.get("result")} for entry in entries]
        return replace(row, data={**row.data, "annotations": annotations}, where=f"{row.where}(predictions) ")
    if tool == "argilla" and row.get("suggestions"):
        suggestions = row.inside(row.get("suggestions"), "suggestions")
        values = {question: suggestions.inside(entry, question).data for question, entry in suggestions.data.items()}
        answers = {question: [{"value": value.get("value"), "user_id": value.get("agent")}] for question, value in values.items()}
        return replace(row, data={**row.data, "responses": answers}, where=f"{row.where}(suggestions) ")
    return None


def _texts(row: Row, form: Any) -> tuple[Prompt, tuple[str, ...]]:
    """The row's prompt and responses, in the fields that the format names or in those of `read_items`."""
    prompt_field = form.answers.prompt if form else "prompt"
    prompt = prompt_field if prompt_field and row.has(prompt_field) else None
    for name in (*LISTS, *([form.items] if hasattr(form, "items") else [])):
        # Argilla's answers are an object of the same name.
        if row.has(name) and not isinstance(row.get(name), dict):
            return prompt_of(row, prompt), tuple(_entry(row, name, i, entry, form) for i, entry in enumerate(row.items(name)))
    numbered = [name for name in sorted(row.data, key=str.lower) if NUMBERED.fullmatch(name) and row.get(name) not in (None, "")]
    several = (getattr(form, "pair", ()), tuple(getattr(form, "ranked", {}).values()), numbered)
    for names in several:
        if names and all(row.has(name) for name in names):
            return responses_of(row, prompt, names)
    if all(row.has(name) for name in PAIRS):
        return responses_of(row, "prompt", PAIRS)
    for name in (*([form.answers.response] if form else []), "response", "completion"):
        if row.has(name):
            return responses_of(row, prompt, [name])
    raise DataError(
        "no responses: `responses` (a list), response_1, response_2 ..., `response`, or chosen and rejected; "
        f"the row has {', '.join(row.data)}; other names are changed by `collect.rename={{OLD: response_1}}`"
    )


def _entry(row: Row, name: str, i: int, entry: Any, form: Any) -> str:
    """The text of an entry of a list of responses."""
    if isinstance(entry, dict):
        fields = [getattr(form, "text_field", ""), *TEXT_FIELDS]
        entry = next((entry[field] for field in fields if field in entry), entry)
    return nonblank_text(entry, f"{row.where}{name}[{i}]")


def _gold(value: Any, view: ItemView, questions: Mapping[str, Question]) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise DataError('gold must be an object of expected answers, such as {"pairwise": {"choice": "a"}} or {"rating/0": 5}')
    optional = {name: _without_requirement(question) for name, question in questions.items()}
    try:
        return parse_steps(value, optional, view)
    except AnswerRefused as cause:
        raise DataError(f"gold: {cause}") from cause


def _without_requirement(question: Question) -> Question:
    """The question, of which a gold item may leave the answer open."""
    twin = copy.copy(question)
    twin.required = False
    return twin
