"""JSON Lines, read strictly and in bounded memory."""

from __future__ import annotations

import glob
import json
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pydantic import PositiveInt

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row import BadLine, Row, kind_of
from rlhf_lightning.registry import register

BLOCK = 1 << 20
FOLDER_PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.json")
# What a file may start with that is surely not JSON Lines; the longer marks first.
OTHER_KINDS = {
    b"\xff\xfe\x00\x00": "UTF-32 text; save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; save it as UTF-8",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"{\x00": "UTF-16 text; save it as UTF-8",
    b"\x00{": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first, or use gzip",
    b"\xfd7zXZ": "compressed by xz; unpack it first, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first, or use gzip",
    b"PAR1": "a Parquet file; export it as JSON Lines",
    b"[": "a JSON array, not JSON Lines (JSONL): write one object per line",
}


@register("feedback_source", "jsonl")
def jsonl(
    *,
    path: str,
    limit: PositiveInt | None = None,
    max_line_bytes: PositiveInt = 8 << 20,
    allow_truncated_tail: bool = False,
    ignore_fields: tuple[str, ...] = (),
) -> Iterator[Row | BadLine]:
    """Rows of JSON Lines files, plain or gzipped, in strict UTF-8.

    Gzip is known by its first bytes, whatever the file is called. A UTF-8 byte order mark, CRLF and blank lines are accepted.
    Refused with file and line: text that isn't UTF-8 (with its byte offset), what isn't one JSON object, a key given twice, NaN and
    Infinity, lone surrogates, NUL (databases can't hold it), nesting too deep to parse, a line that is too long. A file that is
    no JSON Lines at all, has no rows or is damaged spoils the reading. Links to regular files are followed.

    Args:
        path: a file, a folder (its *.jsonl, *.jsonl.gz and *.json, by name, not its subfolders) or a glob pattern (`**` descends).
        limit: stop after this many rows.
        max_line_bytes: a longer line is refused without being held; its first KiB is kept for the report.
        allow_truncated_tail: leave out a last line that is cut off, or what a truncated gzip file lacks, and say so.
        ignore_fields: fields to drop from every row.

    Raises:
        DataError: nothing at `path`, a folder without such files, a URL, a FIFO or device, or a file that can't be opened.
    """
    rows = 0
    for file in _files(path):
        for item in _read(file, max_line_bytes, allow_truncated_tail):
            if isinstance(item, Row):
                rows += 1
                for name in ignore_fields:
                    item.data.pop(name, None)
            yield item
            if rows == limit:
                return


def _files(path: str) -> list[Path]:
    if "://" in path:
        raise DataError(f"feedback_source.path={path!r} is a URL; download the file and give its path")
    try:
        if Path(path).is_dir():
            files = sorted({file for pattern in FOLDER_PATTERNS for file in Path(path).glob(pattern) if not file.is_dir()})
            wanted = f"the folder has no {', '.join(FOLDER_PATTERNS)}"
        elif Path(path).exists():
            files, wanted = [Path(path)], ""
        else:
            files = sorted(Path(name) for name in glob.glob(path, recursive=True) if not Path(name).is_dir())
            wanted = "no such file" if not glob.has_magic(path) else "no file fits the pattern"
        odd = next((file for file in files if not stat.S_ISREG(file.stat().st_mode)), None)
    except (OSError, ValueError) as error:
        raise DataError(f"feedback_source.path={path!r} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not files:
        raise DataError(f"feedback_source.path={path!r}: {wanted}")
    if odd is not None:
        raise DataError(f"{odd} is not a regular file (a FIFO, socket or device); write the rows to a file first")
    return files


def _read(file: Path, longest: int, allow_tail: bool) -> Iterator[Row | BadLine]:
    try:
        with file.open("rb") as handle:
            stream = _Stream(handle)
            number, empty = 1, True
            for number, offset, raw, ended in _lines(stream.blocks(), longest):
                if stream.fault is not None and not ended:
                    break
                start = raw.lstrip(b" \t\r") if empty else b"{"
                if not start or not raw.strip():
                    continue
                if empty and (other := next((told for mark, told in OTHER_KINDS.items() if start.startswith(mark)), None)):
                    yield BadLine(f"{file}:{number}", f"the file is {other}", raw[:1024], "fatal")
                    return
                empty = False
                yield _row(raw, f"{file}:{number}", offset, longest, tail=allow_tail and not ended)
            if stream.fault is not None:
                allowed = allow_tail and stream.is_truncated
                yield BadLine(f"{file}:{number}", stream.fault, b"", "allowed" if allowed else "fatal")
            elif empty:
                yield BadLine(f"{file}:{number}", "no rows: the file is empty or blank", b"", "fatal")
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}") from error


class _Stream:
    """A file's bytes in blocks of bounded size, unpacked if gzip; `fault` says at the end whether they were all there."""

    def __init__(self, handle: BinaryIO) -> None:
        self.handle = handle
        self.fault: str | None = None
        self.is_truncated = False

    def blocks(self) -> Iterator[bytes]:
        data = self.handle.read(BLOCK)
        if data[:2] == b"\x1f\x8b":
            yield from self._unpacked(data)
            return
        while data:
            yield data
            data = self.handle.read(BLOCK)

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        member = zlib.decompressobj(wbits=31)
        try:
            while data:
                yield member.decompress(data, BLOCK)
                data = member.unconsumed_tail
                if member.eof:
                    # A gzip file may hold several members, and zero padding after the last.
                    data = (member.unused_data or self.handle.read(BLOCK)).lstrip(b"\x00")
                    member = zlib.decompressobj(wbits=31) if data else member
                data = data or self.handle.read(BLOCK)
            yield member.flush()
        except zlib.error as error:
            self.fault = f"the gzip file is damaged ({error}); fetch it again"
            return
        if not member.eof:
            self.fault, self.is_truncated = "the gzip file is truncated; fetch it again", True


def _lines(blocks: Iterator[bytes], longest: int) -> Iterator[tuple[int, int, bytes, bool]]:
    """(line number from 1, byte offset, bytes, whether a newline ended it); of too long a line at least longest + 1 bytes."""
    number, offset, dropped, rest = 1, 0, 0, b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for raw in whole:
            skip = len(raw) + dropped + 1
            if offset == 0 and raw.startswith(b"\xef\xbb\xbf"):
                raw, offset, skip = raw[3:], 3, skip - 3
            yield number, offset, raw, True
            number, offset, dropped = number + 1, offset + skip, 0
        if len(rest) > longest:
            dropped += len(rest) - longest - 1
            rest = rest[: longest + 1]
    bom = 3 if offset == 0 and rest.startswith(b"\xef\xbb\xbf") else 0
    yield number, offset + bom, rest[bom:], False


def _row(raw: bytes, origin: str, offset: int, longest: int, tail: bool) -> Row | BadLine:
    if len(raw) > longest:
        kept = raw[:1024]
        return BadLine(origin, f"the line is longer than the limit of {longest} bytes (feedback_source.max_line_bytes)", kept)
    try:
        return Row(_parsed(raw, offset), origin, raw)
    except ValueError as error:
        if tail:
            return BadLine(origin, f"the last line is cut off and left out ({error})", raw, "allowed")
        return BadLine(origin, str(error), raw)


def _parsed(raw: bytes, offset: int) -> dict[str, Any]:
    """The JSON object on a line. Raises ValueError with the reason."""
    try:
        data = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        where = offset + error.start
        raise ValueError(f"not UTF-8: byte 0x{raw[error.start]:02x} at byte offset {where} of the file; save it as UTF-8") from None
    except _NotANumber as error:
        field = re.search(rf'("[^"]{{1,60}}")\s*:[^"]*{error}'.encode(), raw)
        raise ValueError(f"{field[1].decode() if field else 'a value'} is {error}, which is not a JSON number") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not usable JSON: nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError(f"a row must be a JSON object, not {kind_of(data)}")
    # Only an escape can bring in what strict UTF-8 and strict JSON keep out.
    if b"\\u" in raw:
        _check_escapes(data)
    return data


def _check_escapes(data: dict[str, Any]) -> None:
    for field, whole in data.items():
        stack: list[Any] = [field, whole]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                stack += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                stack += value
            elif isinstance(value, str):
                _check_letters(value, ascii(field)[:60])


def _check_letters(text: str, field: str) -> None:
    if "\x00" in text:
        raise ValueError(f"{field} holds a NUL character (\\u0000), which databases can't; take it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{field} holds a lone surrogate (\\ud800 to \\udfff), which is no character") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {ascii(twice)[:60]} is given twice")
    return data


class _NotANumber(ValueError):
    """NaN, Infinity or -Infinity, which Python's parser would take."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotANumber(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
