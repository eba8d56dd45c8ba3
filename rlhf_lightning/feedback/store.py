"""Sequences of feedback: stored in a file with one record in memory at a time, or weighted on access."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast, overload

from rlhf_lightning.config.atomic_write import temporary_sibling
from rlhf_lightning.flow import Comment, Feedback, Rating

READ_CHUNK = 256
"""Records read from the file at a time by an iteration."""

Store = Callable[[Iterable[Feedback]], Sequence[Feedback]]
"""Stores feedback: `list`, or a file."""


class FeedbackSequence(Sequence[Feedback]):
    """Feedback by index, and lists of it by slice."""

    @overload
    def __getitem__(self, index: int) -> Feedback: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feedback]: ...
    def __getitem__(self, index: int | slice) -> Feedback | list[Feedback]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._record(range(len(self))[index])

    def _record(self, index: int) -> Feedback:
        raise NotImplementedError


class FeedbackFile(FeedbackSequence):
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

    def _record(self, index: int) -> Feedback:
        return Feedback.model_validate_json(self._bytes(index, index + 1))

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


SENTIMENT_ASPECT = "sentiment of the comment"


class WeightedFeedback(FeedbackSequence):
    """A view of feedback with weights applied and comments as ratings, computed on access.

    Args:
        annotator_weights: factor of an annotator's judgements; 1 if absent.
        sentiment: maps a comment's text to -1 (bad) .. 1 (good): the comment becomes a rating on that scale.
        comment_weight: factor of such a rating.
    """

    def __init__(
        self, feedback: Sequence[Feedback], annotator_weights: Mapping[str, float], sentiment: Callable[[str], float], comment_weight: float
    ) -> None:
        self.feedback, self.annotator_weights = feedback, annotator_weights
        self.sentiment, self.comment_weight = sentiment, comment_weight

    def __len__(self) -> int:
        return len(self.feedback)

    def _record(self, index: int) -> Feedback:
        record = self.feedback[index]
        weight = record.weight * self.annotator_weights.get(record.annotator or "", 1.0)
        if isinstance(record.judgement, Comment):
            weight *= self.comment_weight
            record = record.model_copy(update={"judgement": sentiment_rating(record.judgement, self.sentiment)})
        return record if weight == record.weight else record.model_copy(update={"weight": weight})


def sentiment_rating(comment: Comment, sentiment: Callable[[str], float]) -> Rating:
    """Convert a comment's sentiment to a rating from -1 to 1, with an aspect of its own."""
    return Rating(value=min(max(sentiment(comment.text), -1.0), 1.0), scale=(-1.0, 1.0), aspect=SENTIMENT_ASPECT)
