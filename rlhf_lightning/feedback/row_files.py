"""Row files: resolve a path to files and read their lines in bounded memory, gzip included."""

from __future__ import annotations

import contextlib
import glob
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from rlhf_lightning.errors import DataError

BLOCK = 1 << 20
MAX_RATIO, SMALL = 200, 64 << 20
"""Highest unpacking ratio beyond the first SMALL bytes: text packs to a twentieth, an archive bomb to a thousandth."""
MAX_BYTES = 8 << 20
"""Default limit on the bytes of a row."""
# First bytes of files that aren't UTF-8 text; longer marks first.
FOREIGN_FORMATS = {
    b"\xff\xfe\x00\x00": "UTF-32 text; save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; save it as UTF-8",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it first, or read the workbook with feedback_source=xlsx",
    b"BZh": "compressed by bzip2; unpack it first, or use gzip",
    b"\xfd7zXZ": "compressed by xz; unpack it first, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first, or use gzip",
    b"PAR1": "a Parquet file; use feedback_source=hub",
}


def files_at(path: str, patterns: Sequence[str], setting: str) -> list[Path]:
    """List the files of a path: a file, a folder (sorted matches, no subfolders) or a glob.

    Links to regular files are followed: data sets are often links into a cache.

    Args:
        setting: with this path, for messages.

    Raises:
        DataError: nothing there, a folder without such files, a URL, or a FIFO, socket or device.
    """
    setting = f"{setting}={path!r}"
    if "://" in path:
        raise DataError(f"{setting} is a URL; download the file and give its path")
    try:
        if Path(path).is_dir():
            files = sorted({file for pattern in patterns for file in Path(path).glob(pattern) if not file.is_dir()})
            problem = f"the folder has no {', '.join(patterns)}"
        elif Path(path).exists():
            files, problem = [Path(path)], ""
        else:
            files = sorted(Path(name) for name in glob.glob(path, recursive=True) if not Path(name).is_dir())
            problem = "no such file" if not glob.has_magic(path) else "no file fits the pattern"
        irregular = next((file for file in files if not stat.S_ISREG(file.stat().st_mode)), None)
    except (OSError, ValueError) as error:
        raise DataError(f"{setting} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not files:
        raise DataError(f"{setting}: {problem}")
    if irregular is not None:
        raise DataError(f"{irregular} is not a regular file (a FIFO, socket or device); write the rows to a file first")
    return files


@contextlib.contextmanager
def open_stream(file: Path) -> Iterator[Stream]:
    """Open a file as a Stream. Raises DataError if it can't be opened or read to its end."""
    try:
        with file.open("rb") as handle:
            yield Stream(handle)
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}") from error


class BrokenFile(Exception):
    """Reading of a file can't continue; the message is the reason."""


class Stream:
    """A file's bytes in blocks of bounded size; gzip is recognised by its first bytes and unpacked.

    Attributes:
        fault: after the last block, why the file was not read completely; None if it was.
        is_truncated: the fault is a missing end of a gzip file.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self.handle = handle
        self.fault: str | None = None
        self.is_truncated = False
        self._packed = 0

    def blocks(self) -> Iterator[bytes]:
        """Yield blocks of about BLOCK bytes at most, whatever the compression ratio."""
        data = self._read()
        if data[:2] == b"\x1f\x8b":
            yield from self._unpack(data)
            return
        while data:
            yield data
            data = self._read()

    def _read(self) -> bytes:
        data = self.handle.read(BLOCK)
        self._packed += len(data)
        return data

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        member, unpacked = zlib.decompressobj(wbits=31), 0
        try:
            while data:
                block = member.decompress(data, BLOCK)
                unpacked += len(block)
                if unpacked > max(SMALL, MAX_RATIO * self._packed):
                    self.fault = (
                        f"the gzip file unpacks to more than {MAX_RATIO} times its size, as no file of text does: unpack it yourself"
                    )
                    return
                yield block
                data = member.unconsumed_tail
                if member.eof:
                    # A gzip file may hold several members, and zero padding after the last.
                    data = (member.unused_data or self._read()).lstrip(b"\x00")
                    member = zlib.decompressobj(wbits=31) if data else member
                data = data or self._read()
            yield member.flush()
        except zlib.error as error:
            self.fault = f"the gzip file is damaged ({error}); fetch it again"
            return
        if not member.eof:
            self.fault, self.is_truncated = "the gzip file is truncated; fetch it again", True


def lines(blocks: Iterator[bytes], max_bytes: int) -> Iterator[tuple[int, int, bytes, bool]]:
    """Yield (line number from 1, byte offset, bytes, ends with a newline), cutting overlong lines."""
    number, offset, dropped, rest = 1, 0, 0, b""
    for block in blocks:
        *complete, rest = (rest + block).split(b"\n")
        for raw in complete:
            skip = len(raw) + dropped + 1
            if offset == 0 and raw.startswith(b"\xef\xbb\xbf"):
                raw, offset, skip = raw[3:], 3, skip - 3
            yield number, offset, raw, True
            number, offset, dropped = number + 1, offset + skip, 0
        if len(rest) > max_bytes:
            dropped += len(rest) - max_bytes - 1
            rest = rest[: max_bytes + 1]
    bom = 3 if offset == 0 and rest.startswith(b"\xef\xbb\xbf") else 0
    yield number, offset + bom, rest[bom:], False


def foreign_format(start: bytes, *more: dict[bytes, str]) -> str | None:
    """Describe the format of a file with these first bytes; None if it may be the expected text."""
    descriptions = {mark: description for kind in (FOREIGN_FORMATS, *more) for mark, description in kind.items()}
    return next((f"the file is {description}" for mark, description in descriptions.items() if start.startswith(mark)), None)
