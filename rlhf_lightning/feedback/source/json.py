"""A JSON array of objects, read strictly and in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path

from pydantic import PositiveInt

from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source._files import MAX_BYTES, Stream, files_at, opened, other_kind
from rlhf_lightning.feedback.source._rows import source
from rlhf_lightning.feedback.source._strict import strict_object
from rlhf_lightning.registry import register

FOLDER_PATTERNS = ("*.json", "*.json.gz")
NO_ARRAY = {
    b"[\x00": "UTF-16 text; save it as UTF-8",
    b"\x00[": "UTF-16 text; save it as UTF-8",
    b"{": "no JSON array: for one object per line use feedback_source=jsonl; an array inside an object must be taken out of it",
}
# It only finds where an item ends: of how many digits a number has it need not know.
_EDGES = JSONDecoder(parse_int=str, parse_float=str)
_BLANKS = re.compile(r"[ \t\r\n]*")
# So near to the end of what was read a thing may look broken, or whole, only because the rest isn't there yet ("-Infin", "1.").
_HALF = 16


@register("feedback_source", "json")
@source
def json(path: str, *, max_item_bytes: PositiveInt = MAX_BYTES) -> Iterator[Row | BadLine]:
    """Rows of files that hold one JSON array of objects, as Label Studio and Argilla export them.

    Read as strictly as JSON Lines (see feedback_source=jsonl), plain or gzipped, one item at a time. An item's origin is the file and
    the line on which it starts. A broken item hides where the next one starts and spoils the reading, as does one that is too long;
    what is well-formed and yet refused (a key given twice, NaN, no object) is a bad line like others.

    Args:
        path: a file, a folder (its *.json and *.json.gz, by name, not its subfolders) or a glob pattern (`**` descends).
        max_item_bytes: a longer item is refused without being held.

    Raises:
        DataError: nothing at `path`, a folder without such files, a URL, a FIFO or device, or a file that can't be opened.
    """
    for file in files_at(path, FOLDER_PATTERNS, "json"):
        with opened(file) as stream:
            yield from _Array(file, stream, max_item_bytes).items()


class _Broken(Exception):
    """The array can't be read on; the message says why."""


class _Array:
    """A reader of one file. It looks for the items' ends in bytes taken as Latin-1, in which JSON's own marks are the same as in UTF-8
    and a place in the text is a place in the file."""

    def __init__(self, file: Path, stream: Stream, longest: int) -> None:
        self.file, self.stream, self.longest = file, stream, longest
        self.blocks = stream.blocks()
        self.text, self.at, self.ended = "", 0, False
        self.line, self.offset = 1, 0

    def items(self) -> Iterator[Row | BadLine]:
        """Every item of the array, and at last what is wrong with the file, if anything."""
        count = 0
        try:
            self._open()
            while self._has_item(count):
                yield self._item()
                count += 1
            if self._letter():
                raise _Broken("text follows the end of the array")
            if not count:
                raise _Broken("no rows: the array is empty")
        except _Broken as broken:
            yield BadLine(self.place, str(broken), self.text[self.at : self.at + 1024].encode("latin-1"), "fatal")

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def _open(self) -> None:
        while len(self.text) < _HALF and not self.ended:
            self._more()
        if self.text.startswith("\xef\xbb\xbf"):
            self.at = 3
        if not self._letter():
            raise _Broken("no rows: the file is empty or blank")
        start = self.text[self.at : self.at + 8].encode("latin-1")
        if other := other_kind(start, NO_ARRAY):
            raise _Broken(other)
        if not start.startswith(b"["):
            raise _Broken("not JSON: expected '[', since a file is one array of objects")
        self._pass(self.at + 1)

    def _has_item(self, count: int) -> bool:
        """Whether another item follows; steps over what stands before it."""
        mark = self._letter()
        if mark == "]":
            self._pass(self.at + 1)
            return False
        if count:
            if mark != ",":
                raise _Broken("not JSON: expected ',' or ']' after an item" + ", but the file ends" * (not mark))
            self._pass(self.at + 1)
            self._letter()
        return True

    def _item(self) -> Row | BadLine:
        origin, end = self.place, self._end()
        raw, offset = self.text[self.at : end].encode("latin-1"), self.offset + self.at
        self._pass(end)
        try:
            return Row(strict_object(raw, offset), origin, raw, intact=True)
        except ValueError as error:
            return BadLine(origin, str(error), raw)

    def _end(self) -> int:
        """Where the item that starts here ends; reads on, twice as far each time, while it may only be cut off."""
        while True:
            try:
                end = _EDGES.raw_decode(self.text, self.at)[1]
            except JSONDecodeError as error:
                if self.ended or not (error.msg.startswith("Unterminated") or error.pos > len(self.text) - _HALF):
                    self._pass(error.pos)
                    raise _Broken(f"not JSON: {error.msg}") from None
            except RecursionError:
                raise _Broken("not usable JSON: nested too deeply") from None
            else:
                if end < len(self.text) - _HALF or self.ended:
                    return self._short(end)
            self._short(len(self.text))
            goal = 2 * (len(self.text) - self.at)
            while len(self.text) - self.at < goal and not self.ended:
                self._more()

    def _short(self, end: int) -> int:
        if end - self.at > self.longest:
            raise _Broken(
                f"the item that starts here is longer than the limit of {self.longest} bytes (feedback_source.json.max_item_bytes)"
            )
        return end

    def _letter(self) -> str:
        """The next mark that isn't blank; empty at the end of the file."""
        while True:
            found = _BLANKS.match(self.text, self.at)
            self._pass(found.end() if found else self.at)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def _pass(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _more(self) -> None:
        block = next(self.blocks, None)
        self.ended = block is None
        if self.stream.fault is not None:
            raise _Broken(self.stream.fault)
        self.offset += self.at
        self.text, self.at = self.text[self.at :] + (block or b"").decode("latin-1"), 0
