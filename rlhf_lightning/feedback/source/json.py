"""A JSON array of objects, read strictly and in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path

from pydantic import PositiveInt

from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.row_files import MAX_BYTES, BrokenFile, Stream, files_at, foreign_format, open_stream
from rlhf_lightning.feedback.row_source import source
from rlhf_lightning.feedback.strict_json import strict_object
from rlhf_lightning.registry import register

FOLDER_PATTERNS = ("*.json", "*.json.gz")
NO_ARRAY = {
    b"[\x00": "UTF-16 text; save it as UTF-8",
    b"\x00[": "UTF-16 text; save it as UTF-8",
    b"{": "no JSON array: for one object per line use feedback_source=jsonl; an array inside an object must be taken out of it",
}
# Only finds the end of an item; numbers stay text.
_EDGES = JSONDecoder(parse_int=str, parse_float=str)
_BLANKS = re.compile(r"[ \t\r\n]*")
# Within this distance of the end of the buffer a token may be cut off ("-Infin", "1.") and is read again with more text.
_MARGIN = 16


@register("feedback_source", "json")
@source
def json(path: str, *, max_item_bytes: PositiveInt = MAX_BYTES) -> Iterator[Row | BadLine]:
    """Rows of files that contain one JSON array of objects, as Label Studio and Argilla export them.

    Read as strictly as JSON Lines (see feedback_source=jsonl), plain or gzipped, one item at a time. An item's origin is the file and
    the line on which it starts. A malformed or overlong item is fatal, because it hides the start of the next one; well-formed items
    that are rejected (a repeated key, NaN, not an object) are bad lines.

    Args:
        path: a file, a folder (its *.json and *.json.gz, by name, not its subfolders) or a glob pattern (`**` descends).
        max_item_bytes: a longer item is rejected without being read into memory.

    Raises:
        DataError: nothing at `path`, a folder without such files, a URL, a FIFO or device, or a file that can't be opened.
    """
    for file in files_at(path, FOLDER_PATTERNS, "feedback_source.json.path"):
        yield from read_json_array(file, max_item_bytes)


def read_json_array(file: Path, max_bytes: int = MAX_BYTES) -> Iterator[Row | BadLine]:
    """Rows of one file (`json`)."""
    with open_stream(file) as stream:
        yield from _Array(file, stream, max_bytes).items()


class _Array:
    """A reader of one file.

    It finds the items' ends in the bytes decoded as Latin-1: JSON's syntax is the same as in UTF-8, and text offsets are file offsets.
    """

    def __init__(self, file: Path, stream: Stream, max_bytes: int) -> None:
        self.file, self.stream, self.max_bytes = file, stream, max_bytes
        self.blocks = stream.blocks()
        self.text, self.at, self.ended = "", 0, False
        self.line, self.offset = 1, 0

    def items(self) -> Iterator[Row | BadLine]:
        """Yield every item of the array, then a fatal bad line if the file is broken."""
        count = 0
        try:
            self._open()
            while self._has_item(count):
                yield self._item()
                count += 1
            if self._next_mark():
                raise BrokenFile("text follows the end of the array")
            if not count:
                raise BrokenFile("no rows: the array is empty")
        except BrokenFile as broken:
            yield BadLine(self.origin, str(broken), self.text[self.at : self.at + 1024].encode("latin-1"), "fatal")

    @property
    def origin(self) -> str:
        return f"{self.file}:{self.line}"

    def _open(self) -> None:
        while len(self.text) < _MARGIN and not self.ended:
            self._read_block()
        if self.text.startswith("\xef\xbb\xbf"):
            self.at = 3
        if not self._next_mark():
            raise BrokenFile("no rows: the file is empty or blank")
        start = self.text[self.at : self.at + 8].encode("latin-1")
        if foreign := foreign_format(start, NO_ARRAY):
            raise BrokenFile(foreign)
        if not start.startswith(b"["):
            raise BrokenFile("not JSON: expected '[', since a file is one array of objects")
        self._advance(self.at + 1)

    def _has_item(self, count: int) -> bool:
        """Advance to the next item; return False at the end of the array."""
        mark = self._next_mark()
        if mark == "]":
            self._advance(self.at + 1)
            return False
        if count:
            if mark != ",":
                raise BrokenFile("not JSON: expected ',' or ']' after an item" + ", but the file ends" * (not mark))
            self._advance(self.at + 1)
            self._next_mark()
        return True

    def _item(self) -> Row | BadLine:
        origin, end = self.origin, self._end()
        raw, offset = self.text[self.at : end].encode("latin-1"), self.offset + self.at
        self._advance(end)
        try:
            return Row(strict_object(raw, offset), origin, raw, intact=True)
        except ValueError as error:
            return BadLine(origin, str(error), raw)

    def _end(self) -> int:
        """Return the end of the current item; read on, doubling the buffer, while the item may be cut off."""
        while True:
            try:
                end = _EDGES.raw_decode(self.text, self.at)[1]
            except JSONDecodeError as error:
                if self.ended or not (error.msg.startswith("Unterminated") or error.pos > len(self.text) - _MARGIN):
                    self._advance(error.pos)
                    raise BrokenFile(f"not JSON: {error.msg}") from None
            except RecursionError:
                raise BrokenFile("not usable JSON: nested too deeply") from None
            else:
                if end < len(self.text) - _MARGIN or self.ended:
                    return self._check_length(end)
            self._check_length(len(self.text))
            goal = 2 * (len(self.text) - self.at)
            while len(self.text) - self.at < goal and not self.ended:
                self._read_block()

    def _check_length(self, end: int) -> int:
        if end - self.at > self.max_bytes:
            raise BrokenFile(
                f"the item that starts here is longer than the limit of {self.max_bytes} bytes (feedback_source.json.max_item_bytes)"
            )
        return end

    def _next_mark(self) -> str:
        """Skip blanks and return the next character; empty at the end of the file."""
        while True:
            blanks = _BLANKS.match(self.text, self.at)
            self._advance(blanks.end() if blanks else self.at)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read_block()

    def _advance(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _read_block(self) -> None:
        block = next(self.blocks, None)
        self.ended = block is None
        if self.stream.fault is not None:
            raise BrokenFile(self.stream.fault)
        self.offset += self.at
        self.text, self.at = self.text[self.at :] + (block or b"").decode("latin-1"), 0
