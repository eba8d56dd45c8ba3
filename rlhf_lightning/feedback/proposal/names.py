"""Usual names of fields, by their role."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable
from pathlib import Path

from rlhf_lightning.feedback.proposal.fields import Field

_VOCABULARY = tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text(encoding="utf-8"))
ROLES: dict[str, list[str]] = {role: names.split() for role, names in _VOCABULARY["roles"].items()}
"""Names of a role's fields, the most usual first."""
WORDS: dict[str, frozenset[str]] = {kind: frozenset(words.split()) for kind, words in _VOCABULARY["words"].items()}
"""Words of aspects, of labels and verdicts by their meaning, of numbers that nobody judged."""
LEVELS: list[list[str]] = list(_VOCABULARY["levels"].values())
"""Words of rating scales, worst first."""
TEXTS = ("prompt", "response", "edited", "chosen", "rejected", "comment")
_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_a-zA-Z]+")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "é": "e", "è": "e", "ó": "o", "ñ": "n", "á": "a", "í": "i"})


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: "responseText_A" -> response, text, a."""
    return tuple(part.lower().translate(_UMLAUTS) for part in _PARTS.findall(name.translate(_UMLAUTS)))


def name_score(name: str, role: str) -> float:
    """Score how a field's name fits a role: 1 is the name itself, 0.8 or less a name with it."""
    words = words_of(name)
    joined = "_".join(words)
    names = ROLES[role]
    if role in TEXTS and words and words[-1] in WORDS["machine"]:
        return 0.0
    if joined in names:
        return 1.0 - 0.1 * names.index(joined) / len(names)
    for length in (3, 2, 1):  # the last words of a name mostly say what it is
        for start in range(len(words) - length, -1, -1):
            if "_".join(words[start : start + length]) in names:
                return 0.8 - 0.1 * (start + length < len(words)) - 0.05 * (len(words) - length)
    return 0.0


def path_score(path: str, role: str) -> float:
    """Score a field's name or, a little less, an object around it: `question.full_text`."""
    outer, _, name = path.rpartition(".")
    if role in TEXTS and is_machine_name(name):
        return 0.0
    around = 0.85 * max((name_score(part, role) for part in outer.split(".")[-2:]), default=0.0) if outer else 0.0
    return max(name_score(name, role), around)


def best_named(fields: Iterable[Field], role: str, used: Collection[str] = ()) -> Field | None:
    """The field whose name fits a role best; None if none does."""
    scores = [(path_score(field.path, role), -i, field) for i, field in enumerate(fields) if field.path not in used]
    best = max(scores, default=None, key=lambda item: item[:2])
    return best[2] if best is not None and best[0] > 0.3 else None


def is_machine_name(name: str) -> bool:
    """Detect the name of an identifier or a count."""
    words = words_of(name)
    return bool(words) and (words[-1] in WORDS["machine"] or words[0] in ("n", "num"))
