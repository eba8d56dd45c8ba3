"""From rows to clean feedback: read strictly, cleaned in order, everything counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.batch import judgement_kind
from rlhf_lightning.feedback.filter.cleaning import Filter
from rlhf_lightning.feedback.reading import BadLine, Format, Row, read_feedback
from rlhf_lightning.flow import Feedback


@dataclass
class Intake:
    """Clean feedback, how many judgements of each kind came in and stayed, and what the user should know."""

    feedback: list[Feedback]
    collected: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def take_in(
    rows: Iterable[Row | BadLine],
    formats: Sequence[Format],
    filters: Mapping[str, Filter],
    on_bad: Literal["refuse", "quarantine"],
    quarantine: Path,
) -> Intake:
    """Read every row and clean the feedback by each filter in turn.

    Raises:
        DataError: bad lines (see `read_feedback`), or nothing left after cleaning.
    """
    reading = read_feedback(rows, formats, on_bad=on_bad, quarantine=quarantine)
    intake = Intake(reading.feedback, Counter(map(judgement_kind, reading.feedback)), notes=list(reading.notes))
    for name, clean in filters.items():
        cleaning = clean(intake.feedback)
        intake.feedback = cleaning.kept
        intake.notes += [f"{name}: {line}" for line in cleaning.lines()]
    intake.kept = Counter(map(judgement_kind, intake.feedback))
    if not intake.feedback:
        raise DataError("cleaning left no feedback: " + "; ".join(intake.notes))
    return intake
