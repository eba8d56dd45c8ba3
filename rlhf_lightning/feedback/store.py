"""Feedback stored in a file: a sequence with one record in memory at a time."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast, overload

from rlhf_lightning.config.atomic_write import temporary_sibling
from rlhf_lightning.flow import Feedback

READ_CHUNK = 256
"""Records read from the file at a time by an iteration."""

Store = Callable[[Iterable[Feedback]], Sequence[Feedback]]
"""Stores feedback: `list`, or a file."""


class FeedbackFile(Sequence[Feedback]):
    """The records of a JSON Lines file written by this class, read on access; eight bytes of memory each."""

    def __init__(self, handle: BinaryIO, starts: array[int]) -> None:
        self._handle, self._starts = handle, starts
        weakref.finalize(self, handle.close)

    @classmethod
    def write(cls, feedback: Iterable[Feedback], path: Path, keep: bool = True) -> FeedbackFile:
        """Write the feedback atomically: an error of its iteration leaves no file.

        Args:
            keep: keep the file at `path`; otherwise it has no name and vanishes with this object.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if not keep:
            unnamed = tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name}-")  # noqa: SIM115
            return cls(cast(BinaryIO, unnamed), _write_records(feedback, cast(BinaryIO, unnamed)))
        temporary = temporary_sibling(path)
        try:
            with temporary.open("wb") as file:
                starts = _write_records(feedback, file)
                os.fsync(file.fileno())
            handle = cast(BinaryIO, temporary.open("rb", buffering=0))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return cls(handle, starts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Feedback: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feedback]: ...
    def __getitem__(self, index: int | slice) -> Feedback | list[Feedback]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return Feedback.model_validate_json(self._bytes(at, at + 1))

    def __iter__(self) -> Iterator[Feedback]:
        for first in range(0, len(self), READ_CHUNK):
            for line in self._bytes(first, min(first + READ_CHUNK, len(self))).splitlines():
                yield Feedback.model_validate_json(line)

    def _bytes(self, first: int, end: int) -> bytes:
        # pread doesn't move the file's position: threads and forked processes may read concurrently.
        return os.pread(self._handle.fileno(), self._starts[end] - self._starts[first], self._starts[first])


def _write_records(feedback: Iterable[Feedback], file: BinaryIO) -> array[int]:
    """Write records as JSON Lines; return their offsets and the final length."""
    starts = array("q", [0])
    for record in feedback:
        starts.append(starts[-1] + file.write(record.model_dump_json().encode() + b"\n"))
    file.flush()
    return starts
