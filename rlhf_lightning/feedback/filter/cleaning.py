"""What a filter is and what it says it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from rlhf_lightning.flow import Comment, Feedback, Judgement, Message, Prompt, Spans, prompt_text


@dataclass(frozen=True)
class Cleaning:
    """What a filter did.

    Attributes:
        removed: how many records were taken out, by reason.
        changed: how many records were altered and kept, by reason.
        notes: what else was found.
        examples: up to five different origins for each reason.
    """

    removed: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def remove(self, record: Feedback, reason: str) -> None:
        """Count a record that is left out."""
        self._count(self.removed, record, reason)

    def change(self, record: Feedback, reason: str) -> None:
        """Count a record that is altered and kept."""
        self._count(self.changed, record, reason)

    def lines(self) -> list[str]:
        """One line for each reason and note, for the run's summary."""
        told = [(f"removed {n}: {reason}", reason) for reason, n in sorted(self.removed.items())]
        told += [(f"changed {n}: {reason}", reason) for reason, n in sorted(self.changed.items())]
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
    """Where a record was read, for order: file, and line by number, so that 9 comes before 10."""
    file, _, line = (record.origin or "").rpartition(":")
    return (file, int(line)) if line.isascii() and line.isdigit() else (record.origin or "", 0)


def with_texts(record: Feedback, mend: Callable[[str], str]) -> Feedback | None:
    """The record with its prompt and responses mended, the same object where nothing changed; None where one is blank afterwards.

    Stretches that were marked in a response that changes no longer fit: see `_moved`.
    """
    prompt, responses = _mended(record.prompt, mend), tuple(map(mend, record.responses))
    if (prompt, responses) == (record.prompt, record.responses):
        return record
    blank_before = record.prompt == ""
    if not all(text.strip() for text in responses) or not (blank_before or prompt_text(prompt).strip()):
        return None
    judgement = record.judgement
    if responses != record.responses and isinstance(judgement, Spans | Comment):
        judgement = _moved(judgement, record.responses[0], mend)
    return record.model_copy(update={"prompt": prompt, "responses": responses, "judgement": judgement})


def _mended(prompt: Prompt, mend: Callable[[str], str]) -> Prompt:
    if isinstance(prompt, str):
        return mend(prompt)
    return tuple(Message(role=message.role, content=mend(message.content)) for message in prompt)


def _moved(judgement: Spans | Comment, text: str, mend: Callable[[str], str]) -> Judgement:
    """The judgement with its stretches where their text stands after the mending.

    A stretch keeps what stood before it mended and its own text mended; one that is nothing afterwards is left out.
    """
    whole = mend(text)

    def moved(start: int, end: int) -> tuple[int, int]:
        return min(len(mend(text[:start])), len(whole)), min(len(mend(text[:end])), len(whole))

    if isinstance(judgement, Spans):
        places = [(span, *moved(span.start, span.end)) for span in judgement.spans]
        return Spans(spans=tuple(span.model_copy(update={"start": a, "end": b}) for span, a, b in places if a < b))
    if judgement.start is None or judgement.end is None:
        return judgement
    start, end = moved(judgement.start, judgement.end)
    return judgement.model_copy(update={"start": start, "end": end} if start < end else {"start": None, "end": None})
