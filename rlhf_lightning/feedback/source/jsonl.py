"""JSON Lines, read strictly and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import PositiveInt

from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.row_files import MAX_BYTES, files_at, foreign_format, lines, open_stream
from rlhf_lightning.feedback.row_source import source
from rlhf_lightning.feedback.strict_json import strict_object
from rlhf_lightning.registry import register

FOLDER_PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.json")
NO_JSON_LINES = {
    b"{\x00": "UTF-16 text; save it as UTF-8",
    b"\x00{": "UTF-16 text; save it as UTF-8",
    b"[": "a JSON array, not JSON Lines (JSONL): use feedback_source=json, or write one object per line",
}


@register("feedback_source", "jsonl")
@source
def jsonl(path: str, *, max_line_bytes: PositiveInt = MAX_BYTES, allow_truncated_tail: bool = False) -> Iterator[Row | BadLine]:
    """Rows of JSON Lines files, plain or gzipped, in strict UTF-8.

    Gzip is recognised by its first bytes, not by the file name. A UTF-8 byte order mark, CRLF and blank lines are accepted.
    Rejected with file and line: text that isn't UTF-8 (with its byte offset), anything but one JSON object, a repeated key, NaN and
    Infinity, lone surrogates, NUL (databases can't hold it), nesting too deep to parse, an overlong line. A file that isn't
    JSON Lines, has no rows or is damaged is fatal. Links to regular files are followed.

    Args:
        path: a file, a folder (its *.jsonl, *.jsonl.gz and *.json, by name, not its subfolders) or a glob pattern (`**` descends).
        max_line_bytes: a longer line is rejected without being read into memory; its first KiB is kept for the report.
        allow_truncated_tail: leave out a last line that is cut off, or the missing end of a gzip file, and note it.

    Raises:
        DataError: nothing at `path`, a folder without such files, a URL, a FIFO or device, or a file that can't be opened.
    """
    for file in files_at(path, FOLDER_PATTERNS, "feedback_source.jsonl.path"):
        yield from read_json_lines(file, max_line_bytes, allow_truncated_tail)


def read_json_lines(file: Path, max_bytes: int = MAX_BYTES, allow_tail: bool = False) -> Iterator[Row | BadLine]:
    """Rows of one file (`jsonl`)."""
    with open_stream(file) as stream:
        number, empty = 1, True
        for number, offset, raw, ended in lines(stream.blocks(), max_bytes):
            if stream.fault is not None and not ended:
                break
            start = raw.lstrip(b" \t\r") if empty else b"{"
            if not start or not raw.strip():
                continue
            if empty and (foreign := foreign_format(start, NO_JSON_LINES) or _table_header(start)):
                yield BadLine(f"{file}:{number}", foreign, raw[:1024], "fatal")
                return
            empty = False
            yield _row(raw, f"{file}:{number}", offset, max_bytes, tail=allow_tail and not ended)
        if stream.fault is not None:
            allowed = allow_tail and stream.is_truncated
            yield BadLine(f"{file}:{number}", stream.fault, b"", "allowed" if allowed else "fatal")
        elif empty:
            yield BadLine(f"{file}:{number}", "no rows: the file is empty or blank", b"", "fatal")


def _table_header(start: bytes) -> str | None:
    """Describe a first line that looks like the header of a table; None for others."""
    is_header = start[:1].isalpha() and any(mark in start for mark in b",;\t") and b":" not in start
    return "a table of text, not JSON Lines: use feedback_source=csv" if is_header else None


def _row(raw: bytes, origin: str, offset: int, max_bytes: int, tail: bool) -> Row | BadLine:
    if len(raw) > max_bytes:
        reason = f"the line is longer than the limit of {max_bytes} bytes (feedback_source.jsonl.max_line_bytes)"
        return BadLine(origin, reason, raw[:1024])
    try:
        return Row(strict_object(raw, offset), origin, raw, intact=True)
    except ValueError as error:
        if tail:
            return BadLine(origin, f"the last line is cut off and left out ({error})", raw, "allowed")
        return BadLine(origin, str(error), raw)
