"""Detection of a file's kind, encoding, delimiter and types of columns."""

from __future__ import annotations

import csv as csv_module
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.row_files import files_at, open_stream
from rlhf_lightning.feedback.row_reader import HUB_NAME, PATTERNS, is_data_set
from rlhf_lightning.registry import make

MAX_ROWS = 2000
"""Rows that are looked at; a proposal is drawn from the first of a file."""
DELIMITERS = ",;\t|"
START = 1 << 18
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:[.,]\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
DATE_FORMATS = (
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M",
)  # fmt: skip
"""Dates with a time of day as spreadsheets and forms write them; a day over 12 tells days from months."""


@dataclass(frozen=True)
class Sample:
    """The first rows of a file and the source that reads them.

    Attributes:
        source, settings: the source's name and its settings, without the types of the columns.
        description: kind, encoding and delimiter in words.
        types: of a table of text, the type of each column that holds no plain text: numbers, booleans, lists, or a date's format.
        faults: lines that can't be read.
        is_complete: the file has no more rows.
    """

    path: str
    source: str
    settings: Mapping[str, Any]
    description: str
    rows: Sequence[Row] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[BadLine] = ()
    is_complete: bool = True

    def typed_settings(self, columns: Sequence[str]) -> dict[str, Any]:
        """The settings of the source with the types of these columns."""
        settings = dict(self.settings)
        for column in dict.fromkeys(columns):
            kind = self.types.get(column)
            if kind in ("numbers", "booleans", "lists"):
                settings[kind] = (*settings.get(kind, ()), column)
            elif kind is not None:
                settings["dates"] = settings.get("dates", {}) | {column: kind}
        if self.settings.get("decimal") and "numbers" not in settings:
            del settings["decimal"]
        return settings


def read_sample(path: str, setting: str = "rlhf-lightning look") -> Sample:
    """Read the first rows of a file, a folder, a pattern, or a data set on the Hub.

    Args:
        setting: with the path, for messages.

    Raises:
        DataError: nothing at the path, or a file that can't be opened.
        ConfigError: a package that the kind of file needs is not installed.
    """
    sample = _kind_of(path, setting)
    if sample.source == "csv":
        untyped = _with_rows(sample)
        types, decimal = column_types(untyped.rows)
        sample = replace(sample, types=types, settings={**sample.settings, **({"decimal": ","} if decimal == "," else {})})
        sample = replace(sample, description=sample.description + ", decimal comma" * (decimal == ","))
        return replace(_with_rows(sample, list(types)), types=types)
    return _with_rows(sample)


def _with_rows(sample: Sample, columns: Sequence[str] = ()) -> Sample:
    read = make("feedback_source", sample.source, {"path": sample.path, **sample.typed_settings(columns)})
    items = list(itertools.islice(read(), MAX_ROWS + 1))
    rows = [item for item in items[:MAX_ROWS] if isinstance(item, Row)]
    faults = [item for item in items[:MAX_ROWS] if isinstance(item, BadLine) and item.verdict != "allowed"]
    return replace(sample, rows=rows, faults=faults, is_complete=len(items) <= MAX_ROWS)


def _kind_of(path: str, setting: str) -> Sample:
    if is_data_set(path):
        is_name = not Path(path).exists() and HUB_NAME.fullmatch(path) is not None
        return Sample(path, "hub", {}, "a data set on the Hub" if is_name else "a data set's folder")
    files = files_at(path, (*PATTERNS, "*.xlsx"), setting)
    name = files[0].name.lower().removesuffix(".gz")
    with open_stream(files[0]) as stream:
        start = next(stream.blocks(), b"")[:START]
    many = f"{len(files)} files, the first " if len(files) > 1 else ""
    if start.startswith(b"PAR1"):
        return Sample(path, "hub", {}, f"{many}Parquet")
    if start.startswith(b"PK\x03\x04"):
        return Sample(path, "xlsx", {}, f"{many}an Excel workbook")
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not name.endswith((".csv", ".tsv")) and first in (b"{", b"["):
        source = "json" if (first == b"[" and not name.endswith(".jsonl")) or first == b"[" else "jsonl"
        return Sample(path, source, {}, f"{many}{'a JSON array' if source == 'json' else 'JSON Lines'}")
    return _table(path, name, start, many)


def _table(path: str, name: str, start: bytes, many: str) -> Sample:
    encoding = detect_encoding(start)
    text = start.decode(encoding, "ignore")
    delimiter = detect_delimiter(text)
    settings: dict[str, Any] = {}
    if encoding != "utf-8":
        settings["encoding"] = encoding
    if delimiter != ("\t" if name.endswith(".tsv") else ","):
        settings["delimiter"] = delimiter
    names = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
    return Sample(path, "csv", settings, f"{many}a table of text, delimiter {names[delimiter]}, {encoding}")


def detect_encoding(start: bytes) -> str:
    """The encoding of a text by its first bytes: utf-8, utf-16, cp1252 or latin-1."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start[1:200:2].count(0) > len(start[1:200:2]) / 2:
        return "utf-16"
    for encoding, cut in (("utf-8", 3), ("cp1252", 0)):
        for end in range(len(start), len(start) - cut - 1, -1):  # the last letter may be cut off
            try:
                start[:end].decode(encoding)
            except UnicodeDecodeError:
                continue
            return encoding
    return "latin-1"


def detect_delimiter(text: str) -> str:
    """The delimiter under which most rows have as many cells as the header, and the header several."""

    def fit(delimiter: str) -> tuple[float, int]:
        try:
            rows = list(itertools.islice((row for row in csv_module.reader(_complete_lines(text), delimiter=delimiter) if row), 200))
        except csv_module.Error:
            return 0.0, 0
        width = len(rows[0]) if rows else 0
        if width < 2:
            return 0.0, 0
        return sum(len(row) == width for row in rows) / len(rows), width

    return max(DELIMITERS, key=fit)


def _complete_lines(text: str) -> Iterator[str]:
    """The lines of a text that may be cut off in the last one."""
    complete, _, rest = text.rpartition("\n") if len(text) > START // 8 else (text, "", "")
    return iter((complete or rest).splitlines(keepends=True))


def column_types(rows: Sequence[Row]) -> tuple[dict[str, str], str]:
    """The type of each column of text that is more than text, and the decimal mark of its numbers."""
    columns: dict[str, list[str]] = {}
    for row in rows:
        for name, cell in row.data.items():
            columns.setdefault(name, []).append(cell.strip())
    numeric = {name: cells for name, cells in columns.items() if all(_NUMBER.fullmatch(cell) for cell in cells)}
    commas = sum("," in cell for cells in numeric.values() for cell in cells)
    points = sum("." in cell for cells in numeric.values() for cell in cells)
    decimal = "," if commas > points else "."
    other = "." if decimal == "," else ","
    types = {}
    for name, cells in columns.items():
        if name in numeric:
            if not any(other in cell for cell in cells):
                types[name] = "numbers"
        elif all(cell.lower() in ("true", "false") for cell in cells):
            types[name] = "booleans"
        elif all(_is_json_list(cell) for cell in cells):
            types[name] = "lists"
        elif form := next((form for form in DATE_FORMATS if all(_is_date(cell, form) for cell in cells)), None):
            types[name] = form
    return types, decimal


def _is_json_list(cell: str) -> bool:
    if not cell.startswith("["):
        return False
    try:
        return isinstance(json.loads(cell), list)
    except ValueError:
        return False


def _is_date(cell: str, form: str) -> bool:
    try:
        datetime.strptime(cell, form)
    except ValueError:
        return False
    return True
