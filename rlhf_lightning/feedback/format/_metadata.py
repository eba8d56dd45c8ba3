"""What every format reads beside the judgement: who gave it, when, how long it took, how much it counts, and which models wrote the
responses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import Row, finite, kind_of, label

T = TypeVar("T")
TIME, SECONDS, WEIGHT = "time", "seconds", "weight"
"""The fields of every format for when it was said, how many seconds it took and how much it counts; a source's `rename` maps other names to
them."""


class About:
    """Reads the fields that stand beside a judgement.

    Args:
        annotator: the field that says who judged; None for none.
        models: for each response in order the field that says who wrote it; or the one field with a list of them.

    Attributes:
        fields: every field that is read.
    """

    def __init__(self, annotator: str | None, models: str | Iterable[str | None] = ()) -> None:
        self.annotator, self.models = annotator, models if isinstance(models, str) else tuple(models)
        named = (self.models,) if isinstance(self.models, str) else self.models
        self.fields = frozenset(name for name in (annotator, *named, TIME, SECONDS, WEIGHT) if name is not None)

    def __call__(self, row: Row) -> dict[str, Any]:
        """annotator, time, seconds, weight, models and origin, as Feedback takes them; what is absent or null is None, a weight 1."""
        return {
            "annotator": row.label(self.annotator),
            "time": _one(row, TIME, moment),
            "seconds": _one(row, SECONDS, duration),
            "weight": _weight(_one(row, WEIGHT, counted)),
        } | self._same(row)

    def each(self, row: Row, count: int, of: str) -> list[dict[str, Any]]:
        """The same for each of the `count` judgements in the list `of`.

        The annotator field must be a list of as many names. Without it they are rater0, rater1, ... by position, which need not be
        the same people in another row. Time, seconds and weight are a list of as many, or one for all.
        """
        given = self.annotator if self.annotator is not None and row.get(self.annotator) is not None else None
        names = [f"rater{i}" for i in range(count)] if given is None else per_item(row, given, count, of, label)
        times, seconds = _all(row, TIME, count, of, moment), _all(row, SECONDS, count, of, duration)
        weights = map(_weight, _all(row, WEIGHT, count, of, counted))
        same = self._same(row)
        return [
            {"annotator": name, "time": when, "seconds": taken, "weight": weight} | same
            for name, when, taken, weight in zip(names, times, seconds, weights, strict=True)
        ]

    def _same(self, row: Row) -> dict[str, Any]:
        names: Iterable[str | None] = ()
        if not isinstance(self.models, str):
            names = (row.label(name) for name in self.models)
        elif row.get(self.models) is not None:
            names = (
                None if name is None else label(name, f"{row.where}{self.models}[{i}]") for i, name in enumerate(row.items(self.models))
            )
        return {"models": models(names), "origin": row.origin}


def models(names: Iterable[str | None]) -> tuple[str | None, ...] | None:
    """Who wrote each response, as Feedback takes it: None where nobody is known."""
    found = tuple(names)
    return found if any(name is not None for name in found) else None


def per_item(row: Row, name: str, count: int, of: str, parse: Callable[[Any, str], T]) -> list[T]:
    """A field that is a list with as many items as the list `of`, each parsed."""
    items = row.items(name)
    if len(items) != count:
        raise DataError(f"{row.where}{name} has {len(items)} items for {count} {of}")
    return [parse(item, f"{row.where}{name}[{i}]") for i, item in enumerate(items)]


def moment(value: Any, name: str) -> datetime:
    """A time written as ISO 8601 with date and time of day. A number is refused: nothing says whether it counts seconds."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            # fromisoformat would make a date alone midnight.
            if ":" in value or "T" in value:
                return datetime.fromisoformat(value)
    raise DataError(f"{name} must be a time as in 2025-01-31T12:00:00Z, not {kind_of(value)}; if it is something else, rename the field")


def duration(value: Any, name: str) -> float:
    """Seconds: a finite number that is at least 0."""
    seconds = finite(value, name)
    if seconds < 0:
        raise DataError(f"{name} is {seconds:g}; it says how many seconds the judgement took, so it can't be below 0")
    return seconds


def counted(value: Any, name: str) -> float:
    """A weight: a finite number that is at least 0."""
    weight = finite(value, name)
    if weight < 0:
        raise DataError(f"{name} is {weight:g}; it says how much the judgement counts, so it can't be below 0")
    return weight


def _weight(value: float | None) -> float:
    return 1.0 if value is None else value


def _one(row: Row, name: str, parse: Callable[[Any, str], T]) -> T | None:
    value = row.get(name)
    return None if value is None else parse(value, f"{row.where}{name}")


def _all(row: Row, name: str, count: int, of: str, parse: Callable[[Any, str], T]) -> list[T] | list[T | None]:
    return per_item(row, name, count, of, parse) if isinstance(row.get(name), list) else [_one(row, name, parse)] * count
