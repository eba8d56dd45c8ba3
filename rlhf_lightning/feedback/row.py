"""A source's row with typed access to its fields, and a line that can't be read as one."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.unknown_fields import suggest_name

_MISSING = object()
_NUMBER = re.compile(r"\s*[+-]?\d+(?:[.,]\d+)?\s*", re.ASCII)


@dataclass(slots=True)  # not frozen, which would cost a microsecond for each row
class Row:
    """One record of a source, with typed access to its fields.

    A field name may be a path into nested objects ("mean.quality"), through lists to the list of their items' values
    ("reviews.rank"). The accessors raise DataError with the field and its value.

    Attributes:
        data: the JSON object.
        origin: "file:line".
        raw: the bytes it was read from, for the quarantine.
        where: prefix of field names in messages ("responses[2]." for an object inside a row).
        weight: how much the source's feedback counts.
        source: the data set's name, if the source has one.
        intact: `raw` is `data` in strict JSON and may be parsed instead.
    """

    data: dict[str, Any]
    origin: str
    raw: bytes = b""
    where: str = ""
    weight: float = 1.0
    source: str | None = None
    intact: bool = False

    def get(self, name: str | None) -> Any:
        """Return the field's value; None if it is absent or null, or the name is None."""
        value = self._value(name) if name is not None else None
        return None if value is _MISSING else value

    def has(self, name: str) -> bool:
        """Return True if the field is present, also as null."""
        return self._value(name) is not _MISSING

    def text(self, name: str) -> str:
        """Return text that isn't blank, unchanged."""
        return nonblank_text(self._require(name), self.where + name)

    def number(self, name: str) -> float:
        """Return a finite number; true and false are rejected."""
        return finite_number(self._require(name), self.where + name)

    def items(self, name: str) -> list[Any]:
        """Return a list that isn't empty."""
        value = self._require(name)
        if not isinstance(value, list):
            raise DataError(f"{self.where}{name} must be a list, not {describe_value(value)}")
        if not value:
            raise DataError(f"{self.where}{name} is an empty list")
        return value

    def optional_items(self, name: str) -> list[Any]:
        """Return a list that may be empty, absent or null."""
        value = self.get(name)
        if value is not None and not isinstance(value, list):
            raise DataError(f"{self.where}{name} must be a list, not {describe_value(value)}")
        return value or []

    def flag(self, name: str) -> bool:
        """Return true or false; False if absent or null."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise DataError(f"{self.where}{name} must be true or false, not {describe_value(value)}")
        return bool(value)

    def label(self, name: str | None) -> str | None:
        """Return a name such as an annotator's: text, or a whole number as text; None if absent or null."""
        value = self.get(name)
        return None if value is None else label(value, f"{self.where}{name}")

    def inside(self, value: Any, where: str) -> Row:
        """Wrap an object inside this row as a Row."""
        if not isinstance(value, dict):
            raise DataError(f"{self.where}{where} must be an object, not {describe_value(value)}")
        return replace(self, data=value, where=f"{self.where}{where}.", intact=False)

    def _value(self, name: str) -> Any:
        if name in self.data:
            return self.data[name]
        return _follow_path(self.data, name.split(".")) if "." in name else _MISSING

    def _require(self, name: str) -> Any:
        value = self._value(name)
        if value is _MISSING:
            raise DataError(f"field '{self.where}{name}' is missing{suggest_name(name, self.data)}")
        if value is None:
            raise DataError(f"{self.where}{name} is null")
        return value


def _follow_path(value: Any, path: list[str]) -> Any:
    for depth, part in enumerate(path):
        if isinstance(value, list):
            items = [_follow_path(item, path[depth:]) for item in value]
            return _MISSING if any(item is _MISSING for item in items) else items
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def describe_value(value: Any) -> str:
    """Describe a JSON value by its type, with short values quoted."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        # str() rejects integers of thousands of digits.
        digits = repr(value) if isinstance(value, float) or abs(value) < 10**15 else "beyond 1e15"
        return f"a number ({digits})"
    if isinstance(value, str):
        return f"text ({value[:40]!r}{'...' if len(value) > 40 else ''})"
    return "a list" if isinstance(value, list) else "an object"


def nonblank_text(value: Any, name: str) -> str:
    """Return the value unchanged. Raises DataError unless it is text that isn't blank."""
    if not isinstance(value, str):
        raise DataError(f"{name} must be text, not {describe_value(value)}")
    if not value.strip():
        raise DataError(f"{name} is {'blank' if value else 'empty'} text")
    return value


def label(value: Any, name: str) -> str:
    """Return text that isn't blank, or a whole number as text. Raises DataError for anything else."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else nonblank_text(value, name)


def finite_number(value: Any, name: str) -> float:
    """Convert a number to float. Raises DataError for other types, NaN, infinities and overflow."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    column = (
        "; a column of numbers is declared by feedback_source.csv.numbers" if isinstance(value, str) and _NUMBER.fullmatch(value) else ""
    )
    raise DataError(f"{name} must be a finite number, not {describe_value(value)}{column}")


def whole_number(value: Any, name: str, lowest: int | None = None) -> int:
    """Return a whole number, of at least `lowest`. Raises DataError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or (lowest is not None and value < lowest):
        bound = "" if lowest is None else f" from {lowest}"
        raise DataError(f"{name} must be a whole number{bound}, not {describe_value(value)}")
    return value


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can't be a row.

    Attributes:
        origin: "file:line".
        reason: the problem and what was expected.
        raw: the line's bytes, or their beginning.
        verdict: "bad" is rejected or quarantined, by feedback.on_bad; "fatal" makes the file unreadable and is always rejected;
            "allowed" was left out by a setting of the source and is only noted.
    """

    origin: str
    reason: str
    raw: bytes = b""
    verdict: Literal["bad", "fatal", "allowed"] = "bad"
