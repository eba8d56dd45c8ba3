"""Detection of mistyped and unread field names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.row_fields import CONTEXT, REMEDIES, STRENGTH, reject_unread

MAX_NAMES = 20


class UnknownFields:
    """Fields that no chosen format reads: noted once each.

    They are rejected if they change the meaning of the row (row_fields) or look like a typo of a field that is read.

    Args:
        declared: the fields that each format reads; None for a format without a list, which disables the check.
    """

    def __init__(self, declared: Sequence[Iterable[str] | None]) -> None:
        names = [name for names in declared if names is not None for name in names]
        self.fields = frozenset([*names, *(name.split(".")[0] for name in names)])
        self.is_complete = None not in declared
        self.typo_of: dict[str, str | None] = {}

    def check(self, row: Mapping[str, Any]) -> None:
        """Note a row's unread fields. Raises DataError for a typo or a field that changes its meaning."""
        if not self.is_complete or self.fields.issuperset(row):
            return
        reject_unread(row, self.fields, CONTEXT | STRENGTH, REMEDIES, "drop it by feedback_source.NAME.ignore_fields=[{name}]")
        for name in sorted(set(row) - self.fields):
            if name not in self.typo_of:
                self.typo_of[name] = next((fields for fields in sorted(self.fields) if is_typo(name, fields)), None)
            if self.typo_of[name] is not None:
                raise DataError(
                    f"unknown field {name!r}, did you mean {self.typo_of[name]!r}? "
                    f"If not, name it: feedback_source.NAME.ignore_fields=[{name}]"
                )

    def notes(self) -> list[str]:
        """Return one line that names the fields, if there are any."""
        names = sorted(name for name, typo in self.typo_of.items() if typo is None)
        return [f"fields that no chosen feedback_format reads: {list_names(names)}"] if names else []


def list_names(names: Iterable[str]) -> str:
    """Join the first names, cut and escaped: they come from a file and go to a terminal."""
    names = list(names)
    names_shown = [name if name.isprintable() and len(name) <= 60 else ascii(name)[:60] for name in names[:MAX_NAMES]]
    return ", ".join(names_shown) + f" and {len(names) - MAX_NAMES} more" * (len(names) > MAX_NAMES)


def suggest_name(name: str, names: Iterable[str]) -> str:
    """Return ', did you mean X?' for a near name, else ''; stricter than the registry's suggestion."""
    matches = difflib.get_close_matches(name, [fields for fields in names if len(fields) <= 60], n=1, cutoff=0.75)
    return f", did you mean {matches[0]!r}?" if matches else ""


def is_typo(name: str, fields: str) -> bool:
    """Detect a letter added, lost, changed or swapped, or another case; never in plurals or short names."""
    a, b = name.casefold(), fields.casefold()
    if a == b:
        return True
    if len(b) < 5 or abs(len(a) - len(b)) > 1 or a == b + "s" or b == a + "s":
        return False
    start = common_prefix_length(a, b)
    end = common_prefix_length(a[start:][::-1], b[start:][::-1])
    removed, added = a[start : len(a) - end], b[start : len(b) - end]
    if len(removed) == len(added) == 2:
        return removed == added[::-1]
    return max(len(removed), len(added)) == 1 and (removed + added).isalpha()


def common_prefix_length(a: str, b: str) -> int:
    """Count the characters that two texts share at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
