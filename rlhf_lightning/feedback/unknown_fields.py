"""The guard against mistyped field names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row_fields import CONTEXT, REMEDIES, STRENGTH, reject_unread

SHOWN = 20


class UnreadFields:
    """Fields that no chosen format reads: noted once each, or rejected where one changes what the row says (row_fields), or where one looks
    like a typo of one that is read.

    Args:
        declared: the fields that each format reads; None for one that doesn't say, which switches all of this off.
    """

    def __init__(self, declared: Sequence[Iterable[str] | None]) -> None:
        names = [name for names in declared if names is not None for name in names]
        self.known = frozenset([*names, *(name.split(".")[0] for name in names)])
        self.told = None not in declared
        self.slip_of: dict[str, str | None] = {}

    def check(self, given: Mapping[str, Any]) -> None:
        """Note the fields of a row. Raises DataError for a typo, or for a field that changes what the row says."""
        if not self.told or self.known.issuperset(given):
            return
        reject_unread(given, self.known, CONTEXT | STRENGTH, REMEDIES, "drop it by feedback_source.NAME.ignore_fields=[{name}]")
        for name in sorted(set(given) - self.known):
            if name not in self.slip_of:
                self.slip_of[name] = next((known for known in sorted(self.known) if is_slip(name, known)), None)
            if self.slip_of[name] is not None:
                raise DataError(
                    f"unknown field {name!r}, did you mean {self.slip_of[name]!r}? "
                    f"If not, name it: feedback_source.NAME.ignore_fields=[{name}]"
                )

    def notes(self) -> list[str]:
        """One line that names the fields, if there are any."""
        names = sorted(name for name, slip in self.slip_of.items() if slip is None)
        return [f"fields that no chosen feedback_format reads: {listed(names)}"] if names else []


def listed(names: Iterable[str]) -> str:
    """The first names, cut and escaped, since they come from a file and go to a terminal."""
    names = list(names)
    shown = [name if name.isprintable() and len(name) <= 60 else ascii(name)[:60] for name in names[:SHOWN]]
    return ", ".join(shown) + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)


def near(name: str, names: Iterable[str]) -> str:
    """', did you mean X?' where one of the names is near, else ''. Nearer than the registry's, as files hold fields of every kind."""
    found = difflib.get_close_matches(name, [known for known in names if len(known) <= 60], n=1, cutoff=0.75)
    return f", did you mean {found[0]!r}?" if found else ""


def is_slip(name: str, known: str) -> bool:
    """One letter added, lost, changed or swapped, or another case. A plural is another word, and so is a short name."""
    a, b = name.casefold(), known.casefold()
    if a == b:
        return True
    if len(b) < 5 or abs(len(a) - len(b)) > 1 or a == b + "s" or b == a + "s":
        return False
    start = shared_start(a, b)
    end = shared_start(a[start:][::-1], b[start:][::-1])
    left, right = a[start : len(a) - end], b[start : len(b) - end]
    if len(left) == len(right) == 2:
        return left == right[::-1]
    return max(len(left), len(right)) == 1 and (left + right).isalpha()


def shared_start(a: str, b: str) -> int:
    """How many characters two texts have in common at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
