"""What a filter is and what it says it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rlhf_lightning.feedback.standardise import Span, edit_spans
from rlhf_lightning.feedback.unknown_fields import common_prefix_length
from rlhf_lightning.flow import Comment, Feedback, Judgement, Message, Prompt, Spans


@dataclass(frozen=True)
class Cleaning:
    """What a filter did.

    Attributes:
        removed: how many records were taken out, by reason.
        changed: how many records were altered and kept, by reason.
        found: how many records were kept as they are and pointed at, by reason.
        notes: what else was found.
        examples: up to five different origins for each reason.
    """

    removed: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def remove(self, record: Feedback, reason: str) -> None:
        """Count a record that is left out."""
        self._count(self.removed, record, reason)

    def change(self, record: Feedback, reason: str) -> None:
        """Count a record that is altered and kept."""
        self._count(self.changed, record, reason)

    def find(self, record: Feedback, reason: str) -> None:
        """Count a record that is kept as it is and pointed at."""
        self._count(self.found, record, reason)

    def lines(self) -> list[str]:
        """One line for each reason and note, for the run's summary."""
        counts = {"removed": self.removed, "changed": self.changed, "found": self.found}
        told = [(f"{what} {n}: {reason}", reason) for what, reasons in counts.items() for reason, n in sorted(reasons.items())]
        return [f"{line} ({', '.join(self.examples[why])})" if self.examples.get(why) else line for line, why in told] + self.notes

    def _count(self, counts: dict[str, int], record: Feedback, reason: str) -> None:
        counts[reason] = counts.get(reason, 0) + 1
        seen = self.examples.setdefault(reason, [])
        if record.origin is not None and len(seen) < 5 and record.origin not in seen:
            seen.append(record.origin)


class Filter(Protocol):
    """Yields the feedback that goes on, in the order in which it came, and counts on `done` what it did.

    Idempotent, and what is kept doesn't depend on the order of what came, as a multiset. Feedback passes one record at a time and
    once, so that a file larger than the memory can be cleaned; a filter that must see all of it before it decides is registered with
    `needs=["whole"]` and may then iterate as often as it likes.
    """

    def __call__(self, feedback: Iterable[Feedback], done: Cleaning) -> Iterator[Feedback]: ...


def place(record: Feedback) -> tuple[str, int]:
    """Where a record was read, for order: file, and line by number, so that 9 comes before 10. Two origins never share a place."""
    if record.origin is None:
        return "", -2
    file, _, line = record.origin.rpartition(":")
    is_number = line.isascii() and line.isdigit() and len(line) < 19 and (line[0] != "0" or line == "0")
    return (file, int(line)) if is_number and len(file) + len(line) < len(record.origin) else (record.origin, -1)


def with_texts(record: Feedback, mend: Callable[[str], str], *, prompt: bool = True) -> Feedback | None:
    """The record with its texts mended, the same object where nothing changed; None where one that changed is blank.

    Texts are the responses, what a comment says, and the prompt (each message of a chat) where `prompt`. Stretches that were marked
    in a response follow it, see `_moved`.
    """
    responses = tuple([mend(text) for text in record.responses])
    asked = _mended(record.prompt, mend) if prompt else record.prompt
    judgement: Judgement = record.judgement
    if isinstance(judgement, Comment) and (said := mend(judgement.text)) != judgement.text:
        judgement = judgement.model_copy(update={"text": said})
    if responses == record.responses and asked == record.prompt and judgement is record.judgement:
        return record
    if isinstance(judgement, Spans | Comment):
        judgement = _moved(judgement, record.responses[0], responses[0])
    mended = record.model_copy(update={"prompt": asked, "responses": responses, "judgement": judgement})
    is_lost = any(old != new and not new.strip() for old, new in zip(_texts(record), _texts(mended), strict=True))
    return None if is_lost else mended


def _mended(prompt: Prompt, mend: Callable[[str], str]) -> Prompt:
    if isinstance(prompt, str):
        return mend(prompt)
    return tuple(Message(role=message.role, content=mend(message.content)) for message in prompt)


def _texts(record: Feedback) -> list[str]:
    asked = [record.prompt] if isinstance(record.prompt, str) else [message.content for message in record.prompt]
    said = [record.judgement.text] if isinstance(record.judgement, Comment) else []
    return [*asked, *record.responses, *said]


def _moved(judgement: Spans | Comment, text: str, mended: str) -> Judgement:
    """The judgement with its stretches where their words stand in the mended text.

    What changed inside a stretch or across its border belongs to it; one of which nothing is left is left out.
    """
    if text == mended:
        return judgement
    changes = [_narrowed(change, text, mended) for change in edit_spans(text, mended)]

    def followed(start: int, end: int) -> tuple[int, int]:
        # The ends of the text stay its ends, whatever the alignment makes of what was added there.
        first, last = _follow(start, end, changes)
        return 0 if start == 0 else first, len(mended) if end == len(text) else last

    if isinstance(judgement, Spans):
        places = [(span, *followed(span.start, span.end)) for span in judgement.spans]
        return Spans(spans=tuple(span.model_copy(update={"start": a, "end": b}) for span, a, b in places if a < b))
    if judgement.start is None or judgement.end is None:
        return judgement
    start, end = followed(judgement.start, judgement.end)
    return judgement.model_copy(update={"start": start, "end": end} if start < end else {"start": None, "end": None})


def _narrowed(change: Span, text: str, mended: str) -> Span:
    """The change without the letters that its two sides share at their ends."""
    old, new = text[change.start : change.end], mended[change.edited_start : change.edited_end]
    first = common_prefix_length(old, new)
    last = common_prefix_length(old[first:][::-1], new[first:][::-1])
    return Span(change.start + first, change.end - last, change.edited_start + first, change.edited_end - last)


def _follow(start: int, end: int, changes: Sequence[Span]) -> tuple[int, int]:
    """A stretch's borders after the changes, which are in order and don't touch."""
    shift_start = shift_end = 0
    for change in changes:
        shift = change.edited_end - change.end
        if change.end <= start:
            shift_start = shift
        elif change.start < start:
            shift_start = change.edited_start - start
        if change.end <= end and change.start < end:
            shift_end = shift
        elif change.start < end:
            shift_end = change.edited_end - end
    return start + shift_start, end + shift_end
