"""One record of a source with typed access to its fields, and a line that can't be one."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.unknown_fields import near

_MISSING = object()


@dataclass(slots=True)  # not frozen, which would cost a microsecond for each row
class Row:
    """One record of a source, with typed access to its fields.

    A field name may be a path into nested objects ("mean.quality"), through lists to the list of what each item holds
    ("reviews.rank"). The accessors raise DataError with the field and what it held.

    Attributes:
        data: the JSON object.
        origin: where it was read, "file:line".
        raw: the bytes it was read from, for the quarantine.
        where: what stands before a field's name in messages ("responses[2]." for an object inside a row).
        weight: how much the source's feedback counts.
        source: the data set's name, where the source was given one.
        intact: whether `raw` is `data` in strict JSON, so that it may be read in its place.
    """

    data: dict[str, Any]
    origin: str
    raw: bytes = b""
    where: str = ""
    weight: float = 1.0
    source: str | None = None
    intact: bool = False

    def get(self, name: str | None) -> Any:
        """The field's value; None where it is absent, null or not asked for."""
        value = self._value(name) if name is not None else None
        return None if value is _MISSING else value

    def has(self, name: str) -> bool:
        """Whether the field is there, null included."""
        return self._value(name) is not _MISSING

    def text(self, name: str) -> str:
        """Text that isn't blank, unchanged."""
        return filled(self._needed(name), self.where + name)

    def number(self, name: str) -> float:
        """A finite number; true and false are none."""
        return finite(self._needed(name), self.where + name)

    def items(self, name: str) -> list[Any]:
        """A list that isn't empty."""
        value = self._needed(name)
        if not isinstance(value, list):
            raise DataError(f"{self.where}{name} must be a list, not {kind_of(value)}")
        if not value:
            raise DataError(f"{self.where}{name} is an empty list")
        return value

    def label(self, name: str | None) -> str | None:
        """A name such as an annotator's: text, or a whole number as text; None where absent or null."""
        value = self.get(name)
        return None if value is None else label(value, f"{self.where}{name}")

    def inside(self, value: Any, where: str) -> Row:
        """An object inside this row, as a row of its own."""
        if not isinstance(value, dict):
            raise DataError(f"{self.where}{where} must be an object, not {kind_of(value)}")
        return replace(self, data=value, where=f"{self.where}{where}.", intact=False)

    def _value(self, name: str) -> Any:
        if name in self.data:
            return self.data[name]
        return _reach(self.data, name.split(".")) if "." in name else _MISSING

    def _needed(self, name: str) -> Any:
        value = self._value(name)
        if value is _MISSING:
            raise DataError(f"field '{self.where}{name}' is missing{near(name, self.data)}")
        if value is None:
            raise DataError(f"{self.where}{name} is null")
        return value


def _reach(value: Any, path: list[str]) -> Any:
    for done, part in enumerate(path):
        if isinstance(value, list):
            found = [_reach(item, path[done:]) for item in value]
            return _MISSING if any(item is _MISSING for item in found) else found
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def kind_of(value: Any) -> str:
    """The JSON kind of a value, in words, with short values shown."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        # float() shortens an integer of thousands of digits, which str() may refuse.
        shown = repr(value) if isinstance(value, float) or abs(value) < 10**15 else "beyond 1e15"
        return f"a number ({shown})"
    if isinstance(value, str):
        return f"text ({value[:40]!r}{'...' if len(value) > 40 else ''})"
    return "a list" if isinstance(value, list) else "an object"


def filled(value: Any, name: str) -> str:
    """The value as it is. Raises DataError for what isn't text, and for empty or blank text."""
    if not isinstance(value, str):
        raise DataError(f"{name} must be text, not {kind_of(value)}")
    if not value.strip():
        raise DataError(f"{name} is {'blank' if value else 'empty'} text")
    return value


def label(value: Any, name: str) -> str:
    """Text that isn't blank, or a whole number as text. Raises DataError for anything else."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else filled(value, name)


def finite(value: Any, name: str) -> float:
    """The value as a float. Raises DataError for true, false, text, NaN, infinities and integers beyond a float."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise DataError(f"{name} must be a finite number, not {kind_of(value)}")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can't be a row.

    Attributes:
        origin: "file:line".
        reason: what is wrong and what was expected.
        raw: the line's bytes, or their beginning.
        verdict: "bad" is refused or set aside as the reader is told; "fatal" spoils the whole file and is always refused;
            "allowed" was left out by the source with the user's consent and is only noted.
    """

    origin: str
    reason: str
    raw: bytes = b""
    verdict: Literal["bad", "fatal", "allowed"] = "bad"
