"""The one door through which feedback enters: rows from a source, judged by formats, all of them or none.

A source yields a Row per record and a BadLine per line it can't read. A format turns a row into Feedback. `read_feedback` joins
them, reports every bad line together and imports nothing unless all is well, or sets the bad lines aside when told to.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import pydantic

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.unread import SHOWN, UnreadFields, listed, near
from rlhf_lightning.flow import Feedback

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a source, with typed access to its fields.

    A field name may be a path into nested objects ("mean.quality"). The accessors raise DataError with the field and what it held.

    Attributes:
        data: the JSON object.
        origin: where it was read, "file:line".
        raw: the bytes it was read from, for the quarantine.
        where: what stands before a field's name in messages ("responses[2]." for an object inside a row).
    """

    data: dict[str, Any]
    origin: str
    raw: bytes = b""
    where: str = ""

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
        return replace(self, data=value, where=f"{self.where}{where}.")

    def _value(self, name: str) -> Any:
        if name in self.data:
            return self.data[name]
        value: Any = self.data
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                return _MISSING
            value = value[part]
        return value

    def _needed(self, name: str) -> Any:
        value = self._value(name)
        if value is _MISSING:
            raise DataError(f"field '{self.where}{name}' is missing{near(name, self.data)}")
        if value is None:
            raise DataError(f"{self.where}{name} is null")
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


@dataclass(frozen=True)
class Reading:
    """What was read: the feedback, how many lines were set aside, and what the user should know."""

    feedback: list[Feedback]
    bad: int
    notes: list[str]


class Source(Protocol):
    """Yields the rows of one reading, and the lines that can't be rows, in the order of the source."""

    def __call__(self) -> Iterable[Row | BadLine]: ...


class Format(Protocol):
    """What a row says: its Feedback, or None where the row has none of the fields in which this format finds a judgement.

    Raises DataError with the reason alone; `read_feedback` adds the place. A format may have two attributes: `fields`, every field
    that it reads (where each chosen format says so, other fields are reported), and `looks_for`, its judgement fields in words.
    """

    def __call__(self, row: Row) -> list[Feedback] | None: ...


def read_feedback(
    rows: Iterable[Row | BadLine],
    formats: Sequence[Format],
    *,
    on_bad: Literal["refuse", "quarantine"] = "refuse",
    quarantine: Path | None = None,
    max_bad_fraction: float = 0.5,
) -> Reading:
    """Every row's feedback, by every format that fits it; nothing is returned or written unless the whole reading succeeds.

    Args:
        rows: what a source yields.
        formats: tried in this order on each row. A row that one of them refuses is bad as a whole.
        on_bad: "refuse" raises if any line is bad; "quarantine" writes the bad lines aside and returns the rest.
        quarantine: JSONL file for the bad lines, one {origin, reason, raw} each (bytes that aren't UTF-8 as \\xNN), written whole.
        max_bad_fraction: with "quarantine", more bad lines than this share of all are refused after all.

    Raises:
        DataError: bad lines (the first 20 and the count), a file that can't be read at all, or no rows.
        ConfigError: no formats, or nowhere to set bad lines aside.
    """
    if not formats:
        raise ConfigError("no feedback_format is chosen: add for example `feedback_format=[pairwise]` to the command")
    if on_bad == "quarantine" and quarantine is None:
        raise ConfigError("on_bad=quarantine needs a file for the bad lines: give quarantine=PATH")
    feedback: list[Feedback] = []
    good, bad, fatal, told, notes = 0, 0, False, list[str](), list[str]()
    unread = UnreadFields([getattr(form, "fields", None) for form in formats])
    with _set_aside(quarantine if on_bad == "quarantine" else None) as write:
        for item in rows:
            judged = _judged(item, formats, unread) if isinstance(item, Row) else item
            if isinstance(judged, list):
                good += 1
                feedback += judged
            elif judged.verdict == "allowed":
                notes.append(f"{judged.origin}: {judged.reason}")
            else:
                bad += 1
                fatal = fatal or judged.verdict == "fatal"
                write(judged)
                if bad <= SHOWN:
                    told.append(f"{judged.origin}: {judged.reason}")
        total = good + bad
        if bad and (on_bad == "refuse" or fatal or bad > max_bad_fraction * total):
            raise DataError(_report(told, bad, total))
        if not good:
            raise DataError("no rows: the source gave nothing to read" if not bad else _report(told, bad, total))
    if bad:
        notes.append(f"{bad} of {total} lines are bad and set aside in {quarantine}")
    return Reading(feedback, bad, notes + unread.notes())


def _judged(row: Row, formats: Sequence[Format], unread: UnreadFields) -> list[Feedback] | BadLine:
    try:
        unread.check(row.data)
        parts = [part for part in (form(row) for form in formats) if part is not None]
        if not parts:
            wants = "; ".join(str(getattr(form, "looks_for", form)) for form in formats)
            raise DataError(f"fits no chosen feedback_format: {wants}. It has: {listed(row.data) or 'no fields'}")
    except DataError as error:
        return BadLine(row.origin, str(error), row.raw)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return BadLine(row.origin, f"{place}{': ' * bool(place)}{first['msg'].removeprefix('Value error, ')}", row.raw)
    except RecursionError:
        return BadLine(row.origin, "nested too deeply", row.raw)
    return [record for part in parts for record in part]


def _report(told: list[str], bad: int, total: int) -> str:
    more = f"\n  ... and {bad - len(told)} more" if bad > len(told) else ""
    lines = "\n  ".join(told)
    return f"{bad} of {total} lines of feedback are bad, nothing is imported:\n  {lines}{more}"


@contextlib.contextmanager
def _set_aside(target: Path | None) -> Iterator[Callable[[BadLine], None]]:
    """Takes bad lines to a file that appears, whole, when the block ends well and there were any."""
    if target is None:
        yield lambda line: None
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = beside.open("w", encoding="utf-8")

    def write(line: BadLine) -> None:
        entry = {"origin": line.origin, "reason": line.reason, "raw": line.raw.decode("utf-8", "backslashreplace")}
        with _writing(target):
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    try:
        yield write
        with _writing(target):
            file.flush()
            os.fsync(file.fileno())
            if file.tell():
                beside.replace(target)
    finally:
        with contextlib.suppress(OSError):
            file.close()
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"can't set bad lines aside in {target}: {error.strerror or error}") from error
