"""Ingestion: rows to clean, counted feedback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.cleaning import Cleaning, Filter
from rlhf_lightning.feedback.judgements import judgement_kind
from rlhf_lightning.feedback.reading import Reader
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.flow import Feedback, Skip

MAX_REASONS = 20
"""Most reasons of skips that are counted by themselves."""


@dataclass
class Intake:
    """Clean feedback, counts of judgements by kind before and after cleaning, filter counts and notes."""

    feedback: Sequence[Feedback]
    collected: Counter[str] = field(default_factory=Counter)
    remaining: Counter[str] = field(default_factory=Counter)
    cleaning: dict[str, Cleaning] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ingest(
    reader: Reader, filters: Mapping[str, Filter], multi_pass: Iterable[str] = (), store: Store = list, intermediate_store: Store = list
) -> Intake:
    """Read every row, leave skips out, and apply each filter in turn.

    Feedback passes one record at a time; it is stored at the end, and before each filter that needs several passes.

    Args:
        multi_pass: names of the filters that need several passes.
        store, intermediate_store: for the clean feedback, and for the input of a `multi_pass` filter; by default in memory.

    Raises:
        DataError: bad lines (see `Reader`), or nothing left after cleaning.
    """
    intake = Intake([])
    skips = Cleaning()
    stream: Iterable[Feedback] = _without_skips(_count(reader, intake.collected), skips)
    for name, clean in filters.items():
        intake.cleaning[name] = Cleaning()
        stream = clean(intermediate_store(stream) if name in multi_pass else stream, intake.cleaning[name])
    intake.feedback = store(_count(stream, intake.remaining))
    intake.cleaning = {"skips": skips, **intake.cleaning} if skips.removed else intake.cleaning
    intake.notes = reader.notes + [f"{name}: {line}" for name, cleaning in intake.cleaning.items() for line in cleaning.lines()]
    if not intake.feedback:
        raise DataError("cleaning left no feedback: " + "; ".join(intake.notes))
    return intake


def _without_skips(feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]:
    """Count what annotators skipped, by reason, and leave it out."""
    for record in feedback:
        if not isinstance(record.judgement, Skip):
            yield record
            continue
        kind = "flagged as faulty" if record.judgement.flagged else "skipped"
        reason = f"{kind}: {record.judgement.reason}" if record.judgement.reason else kind
        is_new = reason not in cleaning.removed and len(cleaning.removed) >= MAX_REASONS
        cleaning.remove(record, f"{kind} for other reasons" if is_new else reason)


def _count(feedback: Iterable[Feedback], counts: Counter[str]) -> Iterator[Feedback]:
    for record in feedback:
        counts[judgement_kind(record)] += 1
        yield record
