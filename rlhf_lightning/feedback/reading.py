"""The one door through which feedback enters: rows from a source, judged by formats, all of them or none.

A source yields a Row per record and a BadLine per line it can't read. A format turns a row into Feedback. `read_feedback` joins
them, reports every bad line together and imports nothing unless all is well, or sets the bad lines aside when told to.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pydantic

from rlhf_lightning.config.atomic_write import temporary_sibling
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.unknown_fields import SHOWN, UnknownFields, list_names
from rlhf_lightning.flow import Feedback


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
    """Every row's feedback as a list, by every format that fits it; see `Reader` for the arguments and errors."""
    reader = Reader(rows, formats, on_bad=on_bad, quarantine=quarantine, max_bad_fraction=max_bad_fraction)
    return Reading(list(reader), reader.bad, reader.notes)


class Reader:
    """The feedback of the rows, one record at a time; nothing is to be used before the iteration has ended without an error.

    Args:
        rows: what a source yields.
        formats: tried in this order on each row. A row that one of them refuses is bad as a whole.
        on_bad: "refuse" raises if any line is bad; "quarantine" writes the bad lines aside and goes on with the rest.
        quarantine: JSONL file for the bad lines, one {origin, reason, raw} each (bytes that aren't UTF-8 as \\xNN), written whole.
        max_bad_fraction: with "quarantine", more bad lines than this share of all are refused after all.
        check: raises DataError for a record that can't be used; its row is bad then.

    Attributes:
        bad, notes: how many lines were set aside, and what the user should know; complete when the iteration has ended.

    Raises:
        DataError: at the end of the rows, for bad lines (the first 20 and the count), a file that can't be read at all, or no rows.
        ConfigError: no formats, or nowhere to set bad lines aside.
    """

    def __init__(
        self,
        rows: Iterable[Row | BadLine],
        formats: Sequence[Format],
        *,
        on_bad: Literal["refuse", "quarantine"] = "refuse",
        quarantine: Path | None = None,
        max_bad_fraction: float = 0.5,
        check: Callable[[Feedback], None] | None = None,
    ) -> None:
        if not formats:
            raise ConfigError("no feedback_format is chosen: add for example `feedback_format=[pairwise]` to the command")
        if on_bad == "quarantine" and quarantine is None:
            raise ConfigError("on_bad=quarantine needs a file for the bad lines: give quarantine=PATH")
        self.rows, self.formats, self.on_bad, self.max_bad_fraction, self.check = rows, formats, on_bad, max_bad_fraction, check
        self.quarantine = quarantine if on_bad == "quarantine" else None
        self.bad, self.notes = 0, list[str]()

    def __iter__(self) -> Iterator[Feedback]:
        good, fatal, told = 0, False, list[str]()
        unread = UnknownFields([getattr(form, "fields", None) for form in self.formats])
        with _set_aside(self.quarantine) as write:
            for item in self.rows:
                judged = _judged(item, self.formats, unread, self.check) if isinstance(item, Row) else item
                if isinstance(judged, list):
                    good += 1
                    yield from judged
                elif judged.verdict == "allowed":
                    self.notes.append(f"{judged.origin}: {judged.reason}")
                else:
                    self.bad += 1
                    fatal = fatal or judged.verdict == "fatal"
                    write(judged)
                    if self.bad <= SHOWN:
                        told.append(f"{judged.origin}: {judged.reason}")
            total = good + self.bad
            if self.bad and (self.on_bad == "refuse" or fatal or self.bad > self.max_bad_fraction * total):
                remedy = "" if fatal or self.on_bad == "quarantine" else " (feedback.on_bad=quarantine sets them aside)"
                raise DataError(_report(told, self.bad, total, remedy))
            if not good:
                raise DataError("no rows: the source gave nothing to read" if not self.bad else _report(told, self.bad, total))
        if self.bad:
            self.notes.append(f"{self.bad} of {total} lines are bad and set aside in {self.quarantine}")
        self.notes += unread.notes()


def _judged(
    row: Row, formats: Sequence[Format], unread: UnknownFields, check: Callable[[Feedback], None] | None
) -> list[Feedback] | BadLine:
    try:
        unread.check(row.data)
        parts = [part for part in (form(row) for form in formats) if part is not None]
        if not parts:
            wants = "; ".join(str(getattr(form, "looks_for", form)) for form in formats)
            raise DataError(f"fits no chosen feedback_format: {wants}. It has: {list_names(row.data) or 'no fields'}")
        records = [record for part in parts for record in part]
        if check is not None:
            for record in records:
                check(record)
    except DataError as error:
        return BadLine(row.origin, str(error), row.raw)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return BadLine(row.origin, f"{place}{': ' * bool(place)}{first['msg'].removeprefix('Value error, ')}", row.raw)
    except RecursionError:
        return BadLine(row.origin, "nested too deeply", row.raw)
    return records if row.weight == 1 and row.source is None else [_of_source(record, row) for record in records]


def _of_source(record: Feedback, row: Row) -> Feedback:
    """The record with its source's weight and name; a name of its own stays."""
    return record.model_copy(update={"weight": record.weight * row.weight, "source": record.source or row.source})


def _report(told: list[str], bad: int, total: int, remedy: str = "") -> str:
    more = f"\n  ... and {bad - len(told)} more" if bad > len(told) else ""
    lines = "\n  ".join(told)
    return f"{bad} of {total} lines of feedback are bad, nothing is imported{remedy}:\n  {lines}{more}"


@contextlib.contextmanager
def _set_aside(target: Path | None) -> Iterator[Callable[[BadLine], None]]:
    """Takes bad lines to a file that appears, whole, when the block ends well and there were any."""
    if target is None:
        yield lambda line: None
        return
    beside = temporary_sibling(target)
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
