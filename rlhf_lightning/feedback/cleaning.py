"""The filter protocol, the counts of a filter's changes, and edits of a record's texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rlhf_lightning.feedback.standardise import SpanChange, edit_spans
from rlhf_lightning.feedback.unknown_fields import common_prefix_length
from rlhf_lightning.flow import Comment, Feedback, Judgement, Message, Prompt, Spans


@dataclass(frozen=True)
class Cleaning:
    """Counts of a filter's changes.

    Attributes:
        removed: number of records left out, by reason.
        changed: number of records altered and kept, by reason.
        flagged: number of records kept unchanged and reported, by reason.
        notes: other results, a line each.
        examples: up to five different origins for each reason.
    """

    removed: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    flagged: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def remove(self, record: Feedback, reason: str) -> None:
        """Count a record that is left out."""
        self._count(self.removed, record, reason)

    def change(self, record: Feedback, reason: str) -> None:
        """Count a record that is altered and kept."""
        self._count(self.changed, record, reason)

    def flag(self, record: Feedback, reason: str) -> None:
        """Count a record that is kept unchanged and reported."""
        self._count(self.flagged, record, reason)

    def lines(self) -> list[str]:
        """Return one line per reason and note, for the run's summary."""
        lines = []
        for change, reasons in (("removed", self.removed), ("changed", self.changed), ("flagged", self.flagged)):
            for reason, count in sorted(reasons.items()):
                origins = self.examples.get(reason)
                lines.append(f"{change} {count}: {reason}" + (f" ({', '.join(origins)})" if origins else ""))
        return lines + self.notes

    def _count(self, counts: dict[str, int], record: Feedback, reason: str) -> None:
        counts[reason] = counts.get(reason, 0) + 1
        origins = self.examples.setdefault(reason, [])
        if record.origin is not None and len(origins) < 5 and record.origin not in origins:
            origins.append(record.origin)


class Filter(Protocol):
    """Yields the remaining feedback in its order and counts its changes on `cleaning`.

    Idempotent, and the result as a multiset doesn't depend on the order of the input. Feedback is iterated once, one record at a
    time, so that a file larger than the memory can be cleaned; a filter that needs several passes is registered with
    `needs=["all_records"]`.
    """

    def __call__(self, feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]: ...


def origin_key(record: Feedback) -> tuple[str, int]:
    """Return a record's origin as a unique sort key: file, then line as a number."""
    if record.origin is None:
        return "", -2
    file, _, line = record.origin.rpartition(":")
    is_number = line.isascii() and line.isdigit() and len(line) < 19 and (line[0] != "0" or line == "0")
    return (file, int(line)) if is_number and len(file) + len(line) < len(record.origin) else (record.origin, -1)


def with_texts(record: Feedback, edit: Callable[[str], str], *, prompt: bool = True) -> Feedback | None:
    """Edit a record's texts: the same object if nothing changed, None if a changed text is blank.

    Texts are the responses, a comment's text and, with `prompt`, the prompt (each message of a chat). Spans of a response are moved
    with their words, see `_move_spans`.
    """
    responses = tuple([edit(text) for text in record.responses])
    prompt_edited = _edited_prompt(record.prompt, edit) if prompt else record.prompt
    judgement: Judgement = record.judgement
    if isinstance(judgement, Comment) and (comment := edit(judgement.text)) != judgement.text:
        judgement = judgement.model_copy(update={"text": comment})
    if responses == record.responses and prompt_edited == record.prompt and judgement is record.judgement:
        return record
    if isinstance(judgement, Spans | Comment):
        judgement = _move_spans(judgement, record.responses[0], responses[0])
    edited = record.model_copy(update={"prompt": prompt_edited, "responses": responses, "judgement": judgement})
    is_lost = any(old != new and not new.strip() for old, new in zip(_texts(record), _texts(edited), strict=True))
    return None if is_lost else edited


def _edited_prompt(prompt: Prompt, edit: Callable[[str], str]) -> Prompt:
    if isinstance(prompt, str):
        return edit(prompt)
    return tuple(Message(role=message.role, content=edit(message.content)) for message in prompt)


def _texts(record: Feedback) -> list[str]:
    prompt_texts = [record.prompt] if isinstance(record.prompt, str) else [message.content for message in record.prompt]
    comment_texts = [record.judgement.text] if isinstance(record.judgement, Comment) else []
    return [*prompt_texts, *record.responses, *comment_texts]


def _move_spans(judgement: Spans | Comment, text: str, edited: str) -> Judgement:
    """Move the judgement's spans to their words in the edited text.

    Changes inside a span or across its border belong to it; an empty span is left out.
    """
    if text == edited:
        return judgement
    changes = [_trim(change, text, edited) for change in edit_spans(text, edited)]

    def move(start: int, end: int) -> tuple[int, int]:
        # A span at an end of the text stays there, whatever the alignment of text added at that end.
        first, last = _follow(start, end, changes)
        return 0 if start == 0 else first, len(edited) if end == len(text) else last

    if isinstance(judgement, Spans):
        offsets = [(span, *move(span.start, span.end)) for span in judgement.spans]
        return Spans(spans=tuple(span.model_copy(update={"start": a, "end": b}) for span, a, b in offsets if a < b))
    if judgement.start is None or judgement.end is None:
        return judgement
    start, end = move(judgement.start, judgement.end)
    return judgement.model_copy(update={"start": start, "end": end} if start < end else {"start": None, "end": None})


def _trim(change: SpanChange, text: str, edited: str) -> SpanChange:
    """Trim the letters that the two sides of a change share at their ends."""
    old, new = text[change.start : change.end], edited[change.edited_start : change.edited_end]
    first = common_prefix_length(old, new)
    last = common_prefix_length(old[first:][::-1], new[first:][::-1])
    return SpanChange(change.start + first, change.end - last, change.edited_start + first, change.edited_end - last)


def _follow(start: int, end: int, changes: Sequence[SpanChange]) -> tuple[int, int]:
    """Return a span's offsets after the changes, sorted and disjoint."""
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
