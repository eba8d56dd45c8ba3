"""Feedback kept in a file: a sequence of records of which one at a time is in memory."""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from rlhf_lightning.flow import Feedback

Store = Callable[[Iterable[Feedback]], Sequence[Feedback]]
"""Where feedback is kept: `list`, or a file."""


class FeedbackFile(Sequence[Feedback]):
    """The records of a JSON Lines file that this class wrote, read when asked for; eight bytes of memory each."""

    def __init__(self, path: Path, starts: array[int]) -> None:
        self.path, self._starts = path, starts
        self._handle = path.open("rb", buffering=0)
        weakref.finalize(self, self._handle.close)

    @classmethod
    def write(cls, feedback: Iterable[Feedback], path: Path) -> FeedbackFile:
        """Write all of the feedback, then put the file in its place: where the feedback ends in an error, no file is left."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        starts, end = array("q", [0]), 0
        try:
            with beside.open("wb") as file:
                for record in feedback:
                    line = record.model_dump_json().encode() + b"\n"
                    file.write(line)
                    end += len(line)
                    starts.append(end)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return cls(path, starts)

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
        start, end = self._starts[at], self._starts[at + 1]
        return Feedback.model_validate_json(os.pread(self._handle.fileno(), end - start, start))

    def __iter__(self) -> Iterator[Feedback]:
        with self.path.open("rb") as file:
            yield from map(Feedback.model_validate_json, file)
