"""Reading of feedback: rows from a source, parsed by formats, all of them or none.

A source yields a Row per record and a BadLine per line it can't read. A format turns a row into Feedback. The reader reports all bad
lines together and yields no result unless every line is good, or quarantines the bad ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pydantic

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.quarantine import quarantine_writer
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.unknown_fields import MAX_NAMES, UnknownFields, list_names
from rlhf_lightning.flow import Feedback


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
        DataError: at the end of the rows, for bad lines (the first 20 and the count), a file that can't be read at all, or no rows.
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
        good, is_fatal, reasons = 0, False, list[str]()
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
                    if self.bad <= MAX_NAMES:
                        reasons.append(f"{records.origin}: {records.reason}")
            self._raise_if_bad(good, is_fatal, reasons)
        if self.bad:
            self.notes.append(f"{self.bad} of {good + self.bad} lines are bad and set aside in {self.quarantine}")
        self.notes += unknown.notes()

    def _raise_if_bad(self, good: int, is_fatal: bool, reasons: list[str]) -> None:
        total = good + self.bad
        if self.bad and (self.on_bad == "refuse" or is_fatal or self.bad > self.max_bad_fraction * total):
            remedy = "" if is_fatal or self.on_bad == "quarantine" else " (feedback.on_bad=quarantine sets them aside)"
            raise DataError(_report(reasons, self.bad, total, remedy))
        if not good:
            raise DataError("no rows: the source gave nothing to read" if not self.bad else _report(reasons, self.bad, total))


def parse_row(
    row: Row, formats: Sequence[Format], unknown: UnknownFields, check: Callable[[Feedback], None] | None
) -> list[Feedback] | BadLine:
    """Parse a row by every format that fits it."""
    try:
        unknown.check(row.data)
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
        field = ".".join(map(str, first["loc"]))
        return BadLine(row.origin, f"{field}{': ' * bool(field)}{first['msg'].removeprefix('Value error, ')}", row.raw)
    except RecursionError:
        return BadLine(row.origin, "nested too deeply", row.raw)
    return records if row.weight == 1 and row.source is None else [_with_source(record, row) for record in records]


def _with_source(record: Feedback, row: Row) -> Feedback:
    """Apply the source's weight, and its name unless the record has one."""
    return record.model_copy(update={"weight": record.weight * row.weight, "source": record.source or row.source})


def _report(reasons: list[str], bad: int, total: int, remedy: str = "") -> str:
    more = f"\n  ... and {bad - len(reasons)} more" if bad > len(reasons) else ""
    lines = "\n  ".join(reasons)
    return f"{bad} of {total} lines of feedback are bad, nothing is imported{remedy}:\n  {lines}{more}"
