"""Reading of feedback: rows from a source, parsed by formats, all of them or none.

A source yields a Row per record and a BadLine per line it can't read. A format turns a row into Feedback. The reader reports all bad
lines together and yields no result unless every line is good, or quarantines the bad ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pydantic

from rlhf_lightning.config.atomic_write import temporary_sibling
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.unknown_fields import MAX_NAMES, UnknownFields, list_names
from rlhf_lightning.flow import Feedback

UNFIT = "fits no chosen feedback_format"
MAX_PLACES = 3
_VALUES = re.compile(r"'[^']*'|\[\d+\]|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
"""What differs between reasons that are alike: values, indices and numbers."""


@contextlib.contextmanager
def quarantine_writer(target: Path | None) -> Iterator[Callable[[BadLine], None]]:
    """Yield a function that writes bad lines; without a target it drops them.

    The file appears atomically when the block ends without an error and had bad lines.
    """
    if target is None:
        yield lambda line: None
        return
    temporary = temporary_sibling(target)
    with _as_data_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("w", encoding="utf-8")

    def write(line: BadLine) -> None:
        entry = {"origin": line.origin, "reason": line.reason, "raw": line.raw.decode("utf-8", "backslashreplace")}
        with _as_data_error(target):
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    try:
        yield write
        with _as_data_error(target):
            file.flush()
            os.fsync(file.fileno())
            if file.tell():
                temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            file.close()
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_data_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"can't set bad lines aside in {target}: {error.strerror or error}") from error


class Format(Protocol):
    """Parses a row as Feedback; returns None for a row without this format's judgement fields.

    Raises DataError with the reason only; the reader adds the origin. A format may have two attributes: `fields`, every field
    that it reads (if each chosen format has it, other fields are reported), and `looks_for`, a description of its judgement fields.
    """

    def __call__(self, row: Row) -> list[Feedback] | None: ...


@dataclass(frozen=True)
class LoadedFeedback:
    """Feedback in memory, the number of quarantined lines, and notes for the user."""

    feedback: list[Feedback]
    bad: int
    notes: list[str]


def read_feedback(rows: Iterable[Row | BadLine], formats: Sequence[Format], **settings: Any) -> LoadedFeedback:
    """Read all rows into memory; see `Reader` for the settings and errors."""
    reader = Reader(rows, formats, **settings)
    return LoadedFeedback(list(reader), reader.bad, reader.notes)


class Reader:
    """Iterates over the rows' feedback; valid only if the iteration ends without an error.

    Args:
        rows: of a source.
        formats: tried in this order on each row. A row that one of them rejects is bad.
        on_bad: "refuse" raises if any line is bad; "quarantine" writes the bad lines to a file and continues.
        quarantine: JSONL file for the bad lines, one {origin, reason, raw} each (bytes that aren't UTF-8 as \\xNN), written atomically.
        max_bad_fraction: with "quarantine", a higher fraction of bad lines raises too.
        check: raises DataError for a record that can't be used, which makes its row bad.

    Attributes:
        bad, notes: number of quarantined lines, and notes for the user; complete when the iteration has ended.

    Raises:
        DataError: at the end of the rows, for bad lines (those that fail alike in one line, with the first three places), a file that
            can't be read at all, or no rows.
        ConfigError: no formats, or no file for the quarantine.
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
        good, is_fatal, faults = 0, False, Faults()
        unknown = UnknownFields([getattr(form, "fields", None) for form in self.formats])
        with quarantine_writer(self.quarantine) as write:
            for item in self.rows:
                records = parse_row(item, self.formats, unknown, self.check) if isinstance(item, Row) else item
                if isinstance(records, list):
                    good += 1
                    yield from records
                elif records.verdict == "allowed":
                    self.notes.append(f"{records.origin}: {records.reason}")
                else:
                    self.bad += 1
                    is_fatal = is_fatal or records.verdict == "fatal"
                    write(records)
                    faults.add(records)
            self._raise_if_bad(good, is_fatal, faults)
        if self.bad:
            self.notes.append(f"{self.bad} of {good + self.bad} lines are bad and set aside in {self.quarantine}")
        self.notes += unknown.notes()

    def _raise_if_bad(self, good: int, is_fatal: bool, faults: Faults) -> None:
        total = good + self.bad
        if self.bad and (self.on_bad == "refuse" or is_fatal or self.bad > self.max_bad_fraction * total):
            remedy = "" if is_fatal or self.on_bad == "quarantine" else " (feedback.on_bad=quarantine sets them aside)"
            raise faults.error(total, remedy)
        if not good:
            raise faults.error(total) if self.bad else DataError("no rows: the source gave nothing to read")


class NoFormatFits(DataError):
    """No row fits a chosen format."""


@dataclass
class Faults:
    """Bad lines, those that fail alike together.

    Attributes:
        groups: by what their reasons have in common, the first reason, the first places and the number of lines.
    """

    groups: dict[str, Fault] = field(default_factory=dict)

    def add(self, line: BadLine) -> None:
        """Count a bad line."""
        fault = self.groups.setdefault(_VALUES.sub("#", line.reason), Fault(line.reason))
        fault.count += 1
        if fault.count <= MAX_PLACES:
            fault.origins.append(line.origin)

    def error(self, total: int, remedy: str = "") -> DataError:
        """The error that reports them, of `total` lines."""
        bad = sum(fault.count for fault in self.groups.values())
        lines = "\n  ".join(str(fault) for fault in list(self.groups.values())[:MAX_NAMES])
        rest = len(self.groups) - MAX_NAMES
        more = f"\n  ... and {rest} more kinds of faults" if rest > 0 else ""
        is_unfit = all(fault.reason.startswith(UNFIT) for fault in self.groups.values())
        kind = NoFormatFits if is_unfit and bad == total else DataError
        return kind(f"{bad} of {total} lines of feedback are bad, nothing is imported{remedy}:\n  {lines}{more}")


@dataclass
class Fault:
    """Lines that are bad for one reason."""

    reason: str
    origins: list[str] = field(default_factory=list)
    count: int = 0

    def __str__(self) -> str:
        if self.count == 1:
            return f"{self.origins[0]}: {self.reason}"
        more = f" and {self.count - MAX_PLACES} more" if self.count > MAX_PLACES else ""
        return f"{', '.join(self.origins)}{more}: {self.reason}"


def parse_row(
    row: Row, formats: Sequence[Format], unknown: UnknownFields, check: Callable[[Feedback], None] | None
) -> list[Feedback] | BadLine:
    """Parse a row by every format that fits it."""
    try:
        unknown.check(row.data)
        parts = [part for part in (form(row) for form in formats) if part is not None]
        if not parts:
            wants = "; ".join(str(getattr(form, "looks_for", form)) for form in formats)
            raise DataError(f"{UNFIT}: {wants}. It has: {list_names(row.data) or 'no fields'}")
        records = [record for part in parts for record in part]
        if check is not None:
            for record in records:
                check(record)
    except DataError as error:
        return BadLine(row.origin, str(error), row.raw)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        return BadLine(row.origin, f"{name}{': ' * bool(name)}{first['msg'].removeprefix('Value error, ')}", row.raw)
    except RecursionError:
        return BadLine(row.origin, "nested too deeply", row.raw)
    if row.weight == 1 and row.source is None:
        return records
    # The source's name is for records without one.
    return [r.model_copy(update={"weight": r.weight * row.weight, "source": r.source or row.source}) for r in records]
