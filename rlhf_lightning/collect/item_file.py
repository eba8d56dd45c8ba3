"""Items from a file: one row for each prompt with its responses."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_lightning.collect.answers import AnswerRefused, parse_steps
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.questions import ItemView, Question
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.chat import prompt_of, responses_of
from rlhf_lightning.feedback.row import BadLine, Row, nonblank_text
from rlhf_lightning.flow import Prompt
from rlhf_lightning.registry import make

SOURCES = {".jsonl": "jsonl", ".gz": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv"}
NUMBERED = re.compile(r"(?:response|completion|answer)[_ ]?(?:[1-8]|[a-h])", re.IGNORECASE)
LISTS = ("responses", "completions")
PAIRS = ("chosen", "rejected")
MAX_RESPONSES = 8


def read_items(path: str, setting: str, questions: Mapping[str, Question]) -> Iterator[Item]:
    """The items of a JSONL, JSON or CSV file.

    A row has `prompt` (a text, or a list of messages) and its responses: a list `responses`, columns response_1, response_2 ...,
    `response` alone, or chosen and rejected as TRL names them; and, if it likes, `models` (a list), `source`, `priority`, and for a gold
    item `gold`, the expected answer of each question.

    Raises:
        ConfigError: a file of another kind. DataError: a row without what is needed, with its file and line.
    """
    kind = SOURCES.get(Path(path).suffix.lower())
    if kind is None:
        raise ConfigError(f"{setting}={path}: a file .jsonl, .json or .csv was expected")
    for row in make("feedback_source", kind, {"path": path})():
        if isinstance(row, BadLine):
            raise DataError(f"{row.origin}: {row.reason}")
        try:
            yield _item(row, questions)
        except (DataError, ValueError) as cause:
            raise DataError(f"{row.origin}: {cause}") from cause


def _item(row: Row, questions: Mapping[str, Question]) -> Item:
    prompt, responses = _texts(row)
    if not 1 <= len(responses) <= MAX_RESPONSES:
        raise DataError(f"{len(responses)} responses; an item has 1 to {MAX_RESPONSES}")
    models = row.get("models")
    if models is not None and (not isinstance(models, list) or len(models) != len(responses)):
        raise DataError(f"models must be a list of {len(responses)} names, one for each response")
    gold = row.get("gold")
    return Item(
        prompt=prompt,
        responses=responses,
        models=None if models is None else tuple(None if model is None else str(model) for model in models),
        source=row.label("source"),
        gold=None if gold is None else _gold(gold, ItemView(prompt, responses), questions),
        priority=row.number("priority") if row.get("priority") is not None else 0.0,
    )


def _texts(row: Row) -> tuple[Prompt, tuple[str, ...]]:
    """The row's prompt and responses."""
    prompt = "prompt" if row.has("prompt") else None
    for name in LISTS:
        if row.has(name):
            return prompt_of(row, prompt), tuple(nonblank_text(text, f"{name}[{i}]") for i, text in enumerate(row.items(name)))
    numbered = [name for name in sorted(row.data, key=str.lower) if NUMBERED.fullmatch(name) and row.get(name) not in (None, "")]
    if numbered:
        return responses_of(row, prompt, numbered)
    if all(row.has(name) for name in PAIRS):
        return responses_of(row, "prompt", PAIRS)
    for name in ("response", "completion"):
        if row.has(name):
            return responses_of(row, prompt, [name])
    raise DataError(
        "no responses: `responses` (a list), response_1, response_2 ..., `response`, or chosen and rejected; "
        f"the row has {', '.join(row.data)}"
    )


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
