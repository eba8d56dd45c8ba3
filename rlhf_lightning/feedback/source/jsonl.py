"""JSON Lines, read strictly and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import PositiveInt

from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source._files import MAX_BYTES, files_at, lines, opened, other_kind
from rlhf_lightning.feedback.source._rows import source
from rlhf_lightning.feedback.source._strict import strict_object
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

    Gzip is known by its first bytes, whatever the file is called. A UTF-8 byte order mark, CRLF and blank lines are accepted.
    Refused with file and line: text that isn't UTF-8 (with its byte offset), what isn't one JSON object, a key given twice, NaN and
    Infinity, lone surrogates, NUL (databases can't hold it), nesting too deep to parse, a line that is too long. A file that is
    no JSON Lines at all, has no rows or is damaged spoils the reading. Links to regular files are followed.

    Args:
        path: a file, a folder (its *.jsonl, *.jsonl.gz and *.json, by name, not its subfolders) or a glob pattern (`**` descends).
        max_line_bytes: a longer line is refused without being held; its first KiB is kept for the report.
        allow_truncated_tail: leave out a last line that is cut off, or what a truncated gzip file lacks, and say so.

    Raises:
        DataError: nothing at `path`, a folder without such files, a URL, a FIFO or device, or a file that can't be opened.
    """
    for file in files_at(path, FOLDER_PATTERNS, "jsonl"):
        yield from _read(file, max_line_bytes, allow_truncated_tail)


def _read(file: Path, longest: int, allow_tail: bool) -> Iterator[Row | BadLine]:
    with opened(file) as stream:
        number, empty = 1, True
        for number, offset, raw, ended in lines(stream.blocks(), longest):
            if stream.fault is not None and not ended:
                break
            start = raw.lstrip(b" \t\r") if empty else b"{"
            if not start or not raw.strip():
                continue
            if empty and (other := other_kind(start, NO_JSON_LINES)):
                yield BadLine(f"{file}:{number}", other, raw[:1024], "fatal")
                return
            empty = False
            yield _row(raw, f"{file}:{number}", offset, longest, tail=allow_tail and not ended)
        if stream.fault is not None:
            allowed = allow_tail and stream.is_truncated
            yield BadLine(f"{file}:{number}", stream.fault, b"", "allowed" if allowed else "fatal")
        elif empty:
            yield BadLine(f"{file}:{number}", "no rows: the file is empty or blank", b"", "fatal")


def _row(raw: bytes, origin: str, offset: int, longest: int, tail: bool) -> Row | BadLine:
    if len(raw) > longest:
        kept = raw[:1024]
        return BadLine(origin, f"the line is longer than the limit of {longest} bytes (feedback_source.jsonl.max_line_bytes)", kept)
    try:
        return Row(strict_object(raw, offset), origin, raw, intact=True)
    except ValueError as error:
        if tail:
            return BadLine(origin, f"the last line is cut off and left out ({error})", raw, "allowed")
        return BadLine(origin, str(error), raw)
