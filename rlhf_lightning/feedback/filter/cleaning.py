"""What a filter is and what it says it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rlhf_lightning.flow import Feedback


@dataclass(frozen=True)
class Cleaning:
    """What a filter did.

    Attributes:
        kept: the feedback that goes on, in the order in which it came.
        removed: how many records were taken out, by reason.
        changed: how many records were altered and kept, by reason.
        notes: what else was found.
        examples: up to five different origins for each reason.
    """

    kept: list[Feedback]
    removed: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def remove(self, record: Feedback, reason: str) -> None:
        """Count a record that is left out."""
        self._count(self.removed, record, reason)

    def keep(self, record: Feedback, changed: str | None = None) -> None:
        """Keep a record, altered for the reason given if any."""
        self.kept.append(record)
        if changed is not None:
            self._count(self.changed, record, changed)

    def lines(self) -> list[str]:
        """One line for each reason and note, for the run's summary."""
        told = [(f"removed {n}: {reason}", reason) for reason, n in self.removed.items()]
        told += [(f"changed {n}: {reason}", reason) for reason, n in self.changed.items()]
        return [f"{line} ({', '.join(self.examples[why])})" if self.examples.get(why) else line for line, why in told] + self.notes

    def _count(self, counts: dict[str, int], record: Feedback, reason: str) -> None:
        counts[reason] = counts.get(reason, 0) + 1
        seen = self.examples.setdefault(reason, [])
        if record.origin is not None and len(seen) < 5 and record.origin not in seen:
            seen.append(record.origin)


class Filter(Protocol):
    """Cleans feedback. Idempotent, and what is kept doesn't depend on the order of what came, as a multiset."""

    def __call__(self, feedback: list[Feedback]) -> Cleaning: ...
