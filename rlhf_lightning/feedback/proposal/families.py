"""Fields that differ by a letter or number only: response_a and response_b, score_1 to score_4."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rlhf_lightning.feedback.proposal.fields import Field

SETS = (
    ("1", "2", "3", "4", "5", "6", "7", "8"), ("0", "1", "2", "3", "4", "5", "6", "7"), ("a", "b", "c", "d", "e", "f", "g", "h"),
    ("left", "right"), ("first", "second", "third", "fourth"), ("one", "two", "three", "four"),
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """Fields in the order of their tokens.

    Attributes:
        stem: what their names share.
        tokens: what differs, in lower case: a, b.
    """

    stem: str
    tokens: tuple[str, ...]
    fields: tuple[Field, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(field.path for field in self.fields)


def families_of(fields: Iterable[Field]) -> list[Family]:
    """All families of at least two fields."""
    members: dict[str, dict[str, Field]] = {}
    for field in fields:
        pieces = _pieces(field.path)
        for i, piece in enumerate(pieces):
            if any(piece.lower() in tokens for tokens in SETS):
                stem = "".join([*pieces[:i], "*", *pieces[i + 1 :]])
                members.setdefault(stem, {})[piece.lower()] = field
    families = []
    for stem, by_token in members.items():
        for tokens in SETS:
            present = [token for token in tokens if token in by_token]
            if len(present) >= 2 and present == list(tokens[: len(present)]) and len(present) == len(by_token):
                families.append(Family(stem, tuple(present), tuple(by_token[token] for token in present)))
                break
    return families


def _pieces(path: str) -> list[str]:
    """Split a name at its separators, at digits and where lower case turns to upper case."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^A-Za-z\d]+", path)
