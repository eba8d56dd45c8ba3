"""Files of rows: which ones a path means, and their lines in bounded memory, unpacked where they are gzip."""

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
"""Unpacked bytes for each packed one, beyond the first SMALL: text packs to a twentieth, an archive bomb to a thousandth."""
MAX_BYTES = 8 << 20
"""How many bytes a row may have unless the source is told otherwise."""
# What a file may start with that is surely no UTF-8 text; the longer marks first.
OTHER_KINDS = {
    b"\xff\xfe\x00\x00": "UTF-32 text; save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; save it as UTF-8",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it first, or save it as CSV",
    b"BZh": "compressed by bzip2; unpack it first, or use gzip",
    b"\xfd7zXZ": "compressed by xz; unpack it first, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first, or use gzip",
    b"PAR1": "a Parquet file; use feedback_source=hub",
}


def files_at(path: str, patterns: Sequence[str], source: str) -> list[Path]:
    """The files that a path means: a file, a folder (what fits the patterns, by name, not its subfolders) or a glob pattern.

    Links to regular files are followed: where a link leads is the user's own decision, and sets are often kept as links into a cache.

    Raises:
        DataError: nothing there, a folder without such files, a URL, or a FIFO, socket or device.
    """
    setting = f"feedback_source.{source}.path={path!r}"
    if "://" in path:
        raise DataError(f"{setting} is a URL; download the file and give its path")
    try:
        if Path(path).is_dir():
            files = sorted({file for pattern in patterns for file in Path(path).glob(pattern) if not file.is_dir()})
            wanted = f"the folder has no {', '.join(patterns)}"
        elif Path(path).exists():
            files, wanted = [Path(path)], ""
        else:
            files = sorted(Path(name) for name in glob.glob(path, recursive=True) if not Path(name).is_dir())
            wanted = "no such file" if not glob.has_magic(path) else "no file fits the pattern"
        odd = next((file for file in files if not stat.S_ISREG(file.stat().st_mode)), None)
    except (OSError, ValueError) as error:
        raise DataError(f"{setting} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not files:
        raise DataError(f"{setting}: {wanted}")
    if odd is not None:
        raise DataError(f"{odd} is not a regular file (a FIFO, socket or device); write the rows to a file first")
    return files


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Stream]:
    """The file's bytes. Raises DataError where it can't be opened or read to its end."""
    try:
        with file.open("rb") as handle:
            yield Stream(handle)
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}") from error


class Stream:
    """A file's bytes in blocks of bounded size, unpacked if gzip, whatever the file is called.

    Attributes:
        fault: at the end of the blocks, why they weren't all of the file; None where they were.
        is_truncated: whether the fault is that the end of a gzip file is missing.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self.handle = handle
        self.fault: str | None = None
        self.is_truncated = False
        self._packed = 0

    def blocks(self) -> Iterator[bytes]:
        """The blocks, none of them much larger than BLOCK however well the file is packed."""
        data = self._read()
        if data[:2] == b"\x1f\x8b":
            yield from self._unpacked(data)
            return
        while data:
            yield data
            data = self._read()

    def _read(self) -> bytes:
        data = self.handle.read(BLOCK)
        self._packed += len(data)
        return data

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
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


def lines(blocks: Iterator[bytes], longest: int) -> Iterator[tuple[int, int, bytes, bool]]:
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


def other_kind(start: bytes, *more: dict[bytes, str]) -> str | None:
    """What a file that starts with these bytes is instead of the text that was expected; None where nothing speaks against it."""
    kinds = {mark: told for kind in (OTHER_KINDS, *more) for mark, told in kind.items()}
    return next((f"the file is {told}" for mark, told in kinds.items() if start.startswith(mark)), None)
