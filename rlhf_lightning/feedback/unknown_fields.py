"""Detection of unread field names: mistyped ones, and those that change the meaning of a row."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rlhf_lightning.errors import DataError

CONTEXT = {
    "tools": "the tools that the model may call",
    "functions": "the functions that the model may call",
    "tool_choice": "which tool the model must call",
    "documents": "documents that the model reads",
    "images": "images that the model sees",
    "image": "an image that the model sees",
    "videos": "videos that the model sees",
    "video": "a video that the model sees",
    "audios": "sound that the model hears",
    "audio": "sound that the model hears",
    "system": "a system message",
    "system_prompt": "a system message",
    "chat_template_kwargs": "arguments of the chat template",
}
"""Model inputs besides the prompt."""
STRENGTH = {
    "weight": "how much the row counts",
    "weights": "how much the row counts",
    "sample_weight": "how much the row counts",
    "margin": "how much better the chosen response is",
    "confidence": "how sure the annotator was",
}
"""Weights of a row."""
COMPANIONS = {"input": "instruction"}
"""The second half of a prompt, by the field of the first."""
REMEDIES = {
    "system": "write it into the prompt, as a chat that begins with the role system; where it names a model, set the format's `model`",
    "margin": "choose feedback_format=[pairwise], which reads margins",
    "confidence": "count it as a weight by feedback_source.NAME.rename={confidence: weight}",
    "sample_weight": "count it by feedback_source.NAME.rename={sample_weight: weight}",
    "weights": "count it by feedback_source.NAME.rename={weights: weight}",
}


def reject_unread(row: Mapping[str, Any], read: Collection[str], fields: Mapping[str, str], remedies: Mapping[str, str], last: str) -> None:
    """Reject a row with a field of `fields` that isn't read; null and empty values are ignored.

    Args:
        read: the fields that are read.
        fields: the meaning of each field.
        remedies: by field, before the last one.
        last: a remedy for any field, with "{name}" for its name.

    Raises:
        DataError: naming the field, its meaning and the remedies.
    """
    for name, meaning in fields.items():
        if name in row and name not in read and row[name] not in (None, "", [], {}):
            remedy = f"{remedies[name]}; " if name in remedies else ""
            raise DataError(f"field {name!r} holds {meaning}, which is not read here: {remedy}{last.format(name=name)}")
    for name, first in COMPANIONS.items():
        if name in row and name not in read and first in read and row[name] not in (None, "", [], {}):
            raise DataError(f"field {name!r} is the second half of the prompt in {first!r} and is not read: join them into one field")


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
