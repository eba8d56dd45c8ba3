"""The fields of a file's rows, nested ones by their paths, with what their values have in common."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlhf_lightning.feedback.chat import ROLES, SHAREGPT_ROLES

Kind = Literal["text", "number", "boolean", "chat", "objects", "list", "mixed"]


@dataclass(frozen=True)
class Field:
    """A field of the rows, or of the objects in a list: its path, and the values that are not null.

    Attributes:
        total: number of rows or objects.
        kind: chat is a list of messages, objects a list of other objects, list one of anything else.
    """

    path: str
    values: Sequence[Any]
    total: int

    @functools.cached_property
    def kind(self) -> Kind:
        kinds = {_kind_of(value) for value in self.values}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def share(self) -> float:
        """Share of the rows that have it."""
        return len(self.values) / max(1, self.total)

    @functools.cached_property
    def distinct(self) -> list[Any]:
        """Distinct values of a scalar field, in the order of their first row; true is not 1."""
        return list({(type(value) is bool, value): value for value in self.values if not isinstance(value, list | dict)}.values())

    @functools.cached_property
    def words(self) -> float:
        """Mean number of words of the texts, or of the messages of chats."""
        return statistics.fmean(len(as_text(value).split()) for value in self.values) if self.values else 0.0

    @functools.cached_property
    def numbers(self) -> list[float]:
        """All numbers in the values, lists included."""
        flat = [item for value in self.values for item in (value if isinstance(value, list) else [value])]
        return [float(item) for item in flat if isinstance(item, int | float) and not isinstance(item, bool)]

    @functools.cached_property
    def items(self) -> list[Any]:
        """The items of all lists."""
        return [item for value in self.values if isinstance(value, list) for item in value]


def fields_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Field]:
    """The fields of the rows by path; of objects their inner fields too, but not of objects in lists."""
    values: dict[str, list[Any]] = {}
    total = 0
    for row in rows:
        total += 1
        for path, value in _walk(row, ""):
            values.setdefault(path, []).append(value)
    return {path: Field(path, column, total) for path, column in values.items()}


def _walk(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _walk(inner, f"{prefix}{name}.")
        elif inner is not None and inner != "":
            yield f"{prefix}{name}", inner


def _kind_of(value: Any) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return "mixed"
    if value and all(is_message(item) for item in value):
        return "chat"
    return "objects" if value and all(isinstance(item, dict) for item in value) else "list"


def is_message(item: Any) -> bool:
    """Detect a turn of a chat, {"role", "content"} or ShareGPT's {"from", "value"}."""
    if not isinstance(item, dict):
        return False
    is_turn = item.get("role") in ROLES and "content" in item
    return is_turn or (item.get("from") in SHAREGPT_ROLES and "value" in item)


def as_text(value: Any) -> str:
    """A text, or the texts of a chat's messages."""
    if isinstance(value, list):
        return " ".join(str(item.get("content", item.get("value", ""))) for item in value if isinstance(item, dict))
    return str(value)
