"""CSV and TSV files, read strictly and in bounded memory."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from csv import Error, field_size_limit, reader
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.row import BadLine, Row, describe_value
from rlhf_lightning.feedback.row_files import MAX_BYTES, BrokenFile, Stream, files_at, foreign_format, lines, open_stream
from rlhf_lightning.feedback.row_source import source
from rlhf_lightning.feedback.strict_json import not_utf8, strict_json
from rlhf_lightning.feedback.unknown_fields import list_names, suggest_name
from rlhf_lightning.registry import register

FOLDER_PATTERNS = ("*.csv", "*.csv.gz", "*.tsv", "*.tsv.gz")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
Encoding = Literal["utf-8", "utf-16", "cp1252", "latin-1"]
_UTF_16 = dict.fromkeys((b"\xff\xfe", b"\xfe\xff"), "UTF-16 text; read it with feedback_source.csv.encoding=utf-16")
UNNAMED = "column 1"
ValueOf = Callable[[str], Any]
Typed = Mapping[str, ValueOf]


@register("feedback_source", "csv")
@source
def csv(
    path: str,
    *,
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None,
    encoding: Encoding = "utf-8",
    decimal: Literal[".", ","] = ".",
    numbers: tuple[str, ...] = (),
    booleans: tuple[str, ...] = (),
    lists: tuple[str, ...] = (),
    dates: dict[str, str] | None = None,
    max_row_bytes: PositiveInt = MAX_BYTES,
) -> Iterator[Row | BadLine]:
    """Rows of CSV and TSV files (RFC 4180) with a header, plain or gzipped, strictly decoded.

    Every cell is text unless its column is declared otherwise. An empty cell is an absent field. Cells in double
    quotes may hold delimiters, line ends and doubled quotes; a row's origin is the line on which it starts. A byte order mark, CRLF and
    blank lines are accepted. A row with too many or too few cells, a cell that doesn't match its column's type, NUL and text
    that isn't UTF-8 are bad lines. Fatal are a quote that doesn't close or is followed by text (it hides the starts of rows), a
    damaged file, a file without rows, and a header with an empty or repeated name; only the first may be empty, as pandas writes its
    index, and is called `column 1`.

    Args:
        path: a file, a folder (its *.csv and *.tsv, also with .gz, by name, not its subfolders) or a glob pattern (`**` descends).
        delimiter: by default a tab in files named .tsv or .tsv.gz, else a comma.
        encoding: encoding of the text; Excel's "Unicode text" is utf-16, its other CSV files in Western Europe are cp1252.
        decimal: the decimal mark of the numbers.
        numbers: columns of numbers, written as in JSON but for the decimal mark.
        booleans: columns of `true` and `false`, in any case.
        lists: columns of JSON lists.
        dates: columns of dates by their format, as in {Timestamp: "%d.%m.%Y %H:%M"} (Python's strptime); they become ISO 8601.
        max_row_bytes: a longer row is rejected without being read into memory.

    Raises:
        ConfigError: an unusable delimiter, or a column declared twice.
        DataError: nothing at `path`, a folder without such files, a URL, a FIFO or device, or a file that can't be opened.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ConfigError(f"feedback_source.csv.delimiter={delimiter!r} must be one character, and no quote or line end")
    typed = _column_types(numbers, booleans, lists, dates or {}, decimal)
    for file in files_at(path, FOLDER_PATTERNS, "feedback_source.csv.path"):
        yield from read_table(file, delimiter, typed, max_row_bytes, encoding)


def _column_types(
    numbers: Sequence[str], booleans: Sequence[str], lists: Sequence[str], dates: Mapping[str, str], decimal: Literal[".", ","]
) -> Typed:
    """The parser of each declared column. Raises ConfigError for one declared twice."""
    declared = Counter([*numbers, *booleans, *lists, *dates])
    if repeated := [name for name, count in declared.items() if count > 1]:
        raise ConfigError(
            f"feedback_source.csv declares {list_names(repeated)} twice; a column is in one of numbers, booleans, lists, dates"
        )
    return {
        **dict.fromkeys(numbers, partial(_number, decimal=decimal)),
        **dict.fromkeys(booleans, _boolean),
        **dict.fromkeys(lists, _list),
        **{name: partial(_date, form=form) for name, form in dates.items()},
    }


def read_table(
    file: Path,
    delimiter: str | None = None,
    typed: Mapping[str, ValueOf] | None = None,
    max_bytes: int = MAX_BYTES,
    encoding: Encoding = "utf-8",
) -> Iterator[Row | BadLine]:
    """Rows of one file (`csv`), with the value of each cell of a `typed` column."""
    separator = delimiter or ("\t" if file.name.removesuffix(".gz").endswith(".tsv") else ",")
    with open_stream(file) as stream:
        yield from _Table(file, stream, separator, max_bytes, encoding).rows(typed or {})


class _Table:
    """A reader of one file.

    Attributes:
        start: first line of the current row.
        raw: the bytes of the current row so far.
        fault: the first problem of the current row.
    """

    def __init__(self, file: Path, stream: Stream, delimiter: str, max_bytes: int, encoding: Encoding) -> None:
        self.file, self.stream, self.delimiter, self.max_bytes, self.encoding = file, stream, delimiter, max_bytes, encoding
        self.start, self.raw, self.fault = 1, bytearray(), ""

    def rows(self, typed: Typed) -> Iterator[Row | BadLine]:
        """Yield every row, then a fatal bad line if the file is broken."""
        count = 0
        try:
            table = self._cells()
            header = next(table, None)
            if header is None:
                raise BrokenFile("no rows: the file is empty or blank (feedback_source.csv.path)")
            if not header[0] and len(header) > 1:
                header[0] = UNNAMED
            self._check_header(header, typed)
            for cells in table:
                count += 1
                yield self._row(header, cells, typed)
            if not count:
                raise BrokenFile("no rows: the file has only a header (feedback_source.csv.path)")
        except BrokenFile as broken:
            yield BadLine(self.origin, str(broken), bytes(self.raw[:1024]), "fatal")

    @property
    def origin(self) -> str:
        return f"{self.file}:{self.start}"

    def _cells(self) -> Iterator[list[str]]:
        """Yield the cells of each row that isn't blank."""
        # The csv module's limit is not needed: rows are bounded here.
        field_size_limit(max(field_size_limit(), self.max_bytes))
        table = reader(self._lines(), delimiter=self.delimiter, strict=True)
        while True:
            try:
                cells = next(table, None)
            except Error as error:
                raise BrokenFile(f"not CSV: {_explain(error)}") from None
            if cells is None:
                return
            if cells:
                yield cells
            self.start, self.raw, self.fault = table.line_num + 1, bytearray(), ""

    def _lines(self) -> Iterator[str]:
        for number, offset, raw, ended in lines(self._blocks(), self.max_bytes):
            if not ended and self.stream.fault is not None:
                self.start = number
                raise BrokenFile(self.stream.fault)
            if not ended and not raw:
                return
            if number == 1 and (foreign := foreign_format(raw, _UTF_16)):
                raise BrokenFile(foreign)
            line = raw + b"\n" * ended
            self.raw += line
            if len(self.raw) > self.max_bytes:
                raise BrokenFile(
                    f"the row that starts here is longer than the limit of {self.max_bytes} bytes (feedback_source.csv.max_row_bytes); "
                    "is there a quote that doesn't close?"
                )
            if b"\x00" in line and not self.fault:
                self.fault = "the row holds a NUL character, which databases can't; take it out"
            yield self._text(line, offset)

    def _blocks(self) -> Iterator[bytes]:
        """The blocks of the file in UTF-8."""
        if self.encoding == "utf-8":
            yield from self.stream.blocks()
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            for block in self.stream.blocks():
                yield decoder.decode(block).encode("utf-8")
            yield decoder.decode(b"", final=True).encode("utf-8")
        except UnicodeError as error:
            raise BrokenFile(f"the file is not {self.encoding} (feedback_source.csv.encoding): {error}") from None

    def _text(self, line: bytes, offset: int) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            self.fault = self.fault or f"{not_utf8(error, offset)}, or give its encoding, such as feedback_source.csv.encoding=cp1252"
            return line.decode("latin-1")

    def _check_header(self, header: list[str], typed: Typed) -> None:
        if self.fault:
            raise BrokenFile(self.fault)
        if "" in header:
            raise BrokenFile(f"column {header.index('') + 1} of the header has no name; write one into the file")
        if len(set(header)) < len(header):
            repeated = next(name for name, count in Counter(header).items() if count > 1)
            raise BrokenFile(f"the header has the column {ascii(repeated)[:60]} twice; rename one in the file")
        for name in typed:
            if name not in header:
                raise BrokenFile(
                    f"no column {name!r}, declared by a setting of feedback_source.csv (numbers, ...){suggest_name(name, header)}; "
                    f"the header has: {list_names(header)}"
                )

    def _row(self, header: Sequence[str], cells: Sequence[str], typed: Typed) -> Row | BadLine:
        raw = bytes(self.raw)
        if self.fault:
            return BadLine(self.origin, self.fault, raw)
        if len(cells) != len(header):
            return BadLine(self.origin, f"{len(cells)} cells, and the header has {len(header)}", raw)
        data: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
        for name, value_of in typed.items():
            if name in data:
                try:
                    data[name] = value_of(data[name])
                except ValueError as error:
                    return BadLine(self.origin, f"{name} {error}", raw)
        return Row(data, self.origin, raw)


def _number(cell: str, decimal: str) -> int | float:
    written = cell.replace(",", ".") if decimal == "," and "." not in cell else cell if decimal == "." else ""
    match = _NUMBER.fullmatch(written)
    if match is None:
        as_in = "as in JSON" if decimal == "." else "with a decimal comma (feedback_source.csv.decimal)"
        comma = "; feedback_source.csv.decimal=',' reads decimal commas" if decimal == "." and "," in cell else ""
        raise ValueError(f"must be a number {as_in}, not {describe_value(cell)}{comma}")
    return float(written) if match[1] or match[2] else int(written)


def _boolean(cell: str) -> bool:
    if cell.lower() not in ("true", "false"):
        raise ValueError(f"must be true or false, not {describe_value(cell)}")
    return cell.lower() == "true"


def _date(cell: str, form: str) -> str:
    with contextlib.suppress(ValueError):
        return datetime.strptime(cell, form).isoformat()
    raise ValueError(f"must be a date as {form} (feedback_source.csv.dates), not {describe_value(cell)}")


def _list(cell: str) -> list[Any]:
    try:
        value = strict_json(cell.encode("utf-8"), 0)
    except ValueError as error:
        raise ValueError(f"must be a JSON list: {error}") from None
    if not isinstance(value, list):
        raise ValueError(f"must be a JSON list, not {describe_value(value)}")
    return value


def _explain(error: Error) -> str:
    message = str(error)
    if "unexpected end of data" in message:
        return "a quote opens in the row that starts here and doesn't close"
    if "expected after" in message:
        what = "something other than a delimiter follows a closing quote"
        return f"in the row that starts here {what} ({message}); is feedback_source.csv.delimiter right?"
    if "new-line character" in message:
        return "in the row that starts here a carriage return is inside an unquoted cell; end lines with LF or CRLF"
    return message
