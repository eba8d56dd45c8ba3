"""From rows to clean feedback: read strictly, cleaned in order, everything counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.cleaning import Cleaning, Filter
from rlhf_lightning.feedback.judgements import judgement_kind
from rlhf_lightning.feedback.reading import Reader
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.flow import Feedback


@dataclass
class Intake:
    """Clean feedback, how many judgements of each kind came in and stayed, what each filter did, and what the user should know."""

    feedback: Sequence[Feedback]
    collected: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    cleaning: dict[str, Cleaning] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def take_in(reader: Reader, filters: Mapping[str, Filter], whole: Iterable[str] = (), store: Store = list, between: Store = list) -> Intake:
    """Read every row and clean the feedback by each filter in turn.

    Feedback passes one record at a time; it is kept at the end, and before each filter that must see all of it.

    Args:
        whole: the filters that must see all of it.
        store, between: where the clean feedback is kept, and what goes into a filter of `whole`; by default in memory.

    Raises:
        DataError: bad lines (see `Reader`), or nothing left after cleaning.
    """
    intake = Intake([])
    stream: Iterable[Feedback] = _counted(reader, intake.collected)
    for name, clean in filters.items():
        intake.cleaning[name] = Cleaning()
        stream = clean(between(stream) if name in whole else stream, intake.cleaning[name])
    intake.feedback = store(_counted(stream, intake.kept))
    intake.notes = reader.notes + [f"{name}: {line}" for name, cleaning in intake.cleaning.items() for line in cleaning.lines()]
    if not intake.feedback:
        raise DataError("cleaning left no feedback: " + "; ".join(intake.notes))
    return intake


def _counted(feedback: Iterable[Feedback], counts: Counter[str]) -> Iterator[Feedback]:
    for record in feedback:
        counts[judgement_kind(record)] += 1
        yield record
