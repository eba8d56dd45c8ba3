"""Metadata of a judgement, for every format: annotator, time, seconds, weight and models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import judged_turn, prompt_of, response_of
from rlhf_lightning.feedback.row import Row, describe_value, finite_number, label
from rlhf_lightning.flow import Prompt

T = TypeVar("T")
TIME, SECONDS, WEIGHT, SELECTED_BY = "time", "seconds", "weight", "selected_by"
"""Fields of every format: time, seconds and weight of the judgement, what chose the question. A source's `rename` maps others to them."""


class JudgementMetadata:
    """Reads the metadata fields of a judgement.

    Args:
        annotator: the field with the annotator; None for none.
        models: the field with the model of each response, in order; or one field with a list of them.

    Attributes:
        fields: every field that is read.
    """

    def __init__(self, annotator: str | None, models: str | Iterable[str | None] = ()) -> None:
        self.annotator, self.models = annotator, models if isinstance(models, str) else tuple(models)
        names_read = (self.models,) if isinstance(self.models, str) else self.models
        self.fields = frozenset(name for name in (annotator, *names_read, TIME, SECONDS, WEIGHT, SELECTED_BY) if name is not None)

    def __call__(self, row: Row) -> dict[str, Any]:
        """Read all metadata of a judgement; what is absent is None, the weight 1."""
        return {
            "annotator": row.label(self.annotator),
            "time": _field(row, TIME, parse_time),
            "seconds": _field(row, SECONDS, parse_nonnegative),
            "weight": _weight(_field(row, WEIGHT, parse_nonnegative)),
        } | self._same(row)

    def per_annotator(self, row: Row, count: int, of: str) -> list[dict[str, Any]]:
        """Read the metadata of each of the `count` judgements in the list `of`.

        The annotator field must be a list of `count` names. Without it they are rater0, rater1, ... by position, not necessarily
        the same people in another row. Time, seconds and weight are lists of `count` values, or one for all.
        """
        annotator_field = self.annotator if self.annotator is not None and row.get(self.annotator) is not None else None
        names = [f"rater{i}" for i in range(count)] if annotator_field is None else per_item(row, annotator_field, count, of, label)
        times, seconds = _field_per_item(row, TIME, count, of, parse_time), _field_per_item(row, SECONDS, count, of, parse_nonnegative)
        weights = map(_weight, _field_per_item(row, WEIGHT, count, of, parse_nonnegative))
        same = self._same(row)
        return [
            {"annotator": name, "time": time, "seconds": duration, "weight": weight} | same
            for name, time, duration, weight in zip(names, times, seconds, weights, strict=True)
        ]

    def _same(self, row: Row) -> dict[str, Any]:
        names: Iterable[str | None] = ()
        if not isinstance(self.models, str):
            names = (row.label(name) for name in self.models)
        elif row.get(self.models) is not None:
            names = (
                None if name is None else label(name, f"{row.where}{self.models}[{i}]") for i, name in enumerate(row.items(self.models))
            )
        return {"models": response_models(names), "selected_by": row.label(SELECTED_BY), "origin": row.origin}


def response_models(names: Iterable[str | None]) -> tuple[str | None, ...] | None:
    """Return the model of each response as Feedback.models; None if all are unknown."""
    known_names = tuple(names)
    return known_names if any(name is not None for name in known_names) else None


def per_item(row: Row, name: str, count: int, of: str, parse: Callable[[Any, str], T]) -> list[T]:
    """Parse the items of a list field that has as many items as the list `of`."""
    items = row.items(name)
    if len(items) != count:
        raise DataError(f"{row.where}{name} has {len(items)} items for {count} {of}")
    return [parse(item, f"{row.where}{name}[{i}]") for i, item in enumerate(items)]


def parse_time(value: Any, name: str) -> datetime:
    """Parse an ISO 8601 date and time. A number is rejected: its unit is unknown."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            # fromisoformat reads a date without a time as midnight.
            if ":" in value or "T" in value:
                return datetime.fromisoformat(value)
    raise DataError(
        f"{name} must be a time as in 2025-01-31T12:00:00Z, not {describe_value(value)}; if it is something else, rename the field"
    )


def parse_nonnegative(value: Any, name: str) -> float:
    """Parse seconds or a weight: a finite number of at least 0."""
    number = finite_number(value, name)
    if number < 0:
        raise DataError(f"{name} is {number:g}; it can't be below 0")
    return number


def _weight(value: float | None) -> float:
    return 1.0 if value is None else value


def _field(row: Row, name: str, parse: Callable[[Any, str], T]) -> T | None:
    value = row.get(name)
    return None if value is None else parse(value, f"{row.where}{name}")


def _field_per_item(row: Row, name: str, count: int, of: str, parse: Callable[[Any, str], T]) -> list[T] | list[T | None]:
    return per_item(row, name, count, of, parse) if isinstance(row.get(name), list) else [_field(row, name, parse)] * count


@dataclass(kw_only=True)
class RowFormat:
    """The settings of formats of rows with a prompt, and what every format declares.

    Attributes:
        prompt: the field with the prompt, a text or a list of messages; null for texts that were judged by themselves.
        annotator: optional field, who judged.
    """

    prompt: str | None = "prompt"
    annotator: str | None = "annotator"

    def declare(self, looks_for: str, *names: str | None, models: str | Iterable[str | None] = ()) -> None:
        """Set what a `Format` has: `looks_for`, and `fields` from the names and the metadata."""
        self.metadata = JudgementMetadata(self.annotator, models)
        self.fields = self.metadata.fields | {name for name in (self.prompt, *names) if name is not None}
        self.looks_for = looks_for


@dataclass(kw_only=True)
class ResponseFormat(RowFormat):
    """The settings of formats of rows with one response.

    Attributes:
        response: the field with the response.
        model: optional field, who wrote the response.
    """

    response: str = "response"
    model: str | None = "model"


@dataclass(kw_only=True)
class ExchangeFormat(ResponseFormat):
    """The settings of formats of rows with a prompt and its response, or with a chat that holds both.

    Attributes:
        messages: the field with a chat that was judged as a unit, instead of prompt and response: its last answer is the response.
    """

    messages: str | None = None

    def declare_exchange(self, looks_for: str, *names: str | None) -> None:
        """Set what a `Format` has; of a chat, prompt and response aren't read."""
        texts = [self.response] if self.messages is None else [self.messages]
        self.declare(looks_for, *texts, *names, models=[self.model])
        if self.messages is not None:
            self.fields = self.fields - {self.prompt}

    def exchange(self, row: Row) -> tuple[Prompt, str]:
        """Read the row's prompt and response."""
        if self.messages is not None:
            return judged_turn(row, self.messages)
        prompt = prompt_of(row, self.prompt)
        return prompt, response_of(row, self.response, prompt)
