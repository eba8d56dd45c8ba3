"""Meanings of labels and verdicts as people and tools write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rlhf_lightning.feedback.proposal.names import WORDS, words_of

_COMPARED = re.compile(r"\W*(\w+)\W*?(>+|<+|=+)\W*(\w+)\W*")
ORDINALS = {"first": ("1", "a", "left", "first", "one"), "second": ("2", "b", "right", "second", "two")}


def thumbs_meaning(value: Any, name: str) -> str | None:
    """`up`, `down` or `skip`; None for a label that could mean anything.

    Args:
        name: of the field; "toxic" turns true and 1 around.
    """
    is_bad = not WORDS["bad"].isdisjoint(words_of(name))
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (-1, 0, 1)):
        return "down" if (value > 0) == is_bad else "up"
    text = str(value).strip().lower()
    forms = (text, "_".join(words_of(text)), text.split()[0] if text.split() else "")
    flips = is_bad and any(form in ("true", "yes", "y", "false", "no", "n", "ja", "nein") for form in forms)
    for form in forms:
        for meaning in ("up", "down", "skip"):
            if form in WORDS[meaning]:
                return {"up": "down", "down": "up"}.get(meaning, meaning) if flips else meaning
    return None


def verdict_meaning(value: Any, tokens: Sequence[str]) -> str | None:
    """`first_wins`, `second_wins`, `tie` or `both_bad`; None for a verdict that could mean anything.

    Args:
        tokens: what tells the fields of the two responses apart, in lower case: a and b, 0 and 1.
    """
    if isinstance(value, bool):
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip().lower()
    if compared := _COMPARED.fullmatch(text):
        a, sign, b = compared.groups()
        if {side_of(a, tokens), side_of(b, tokens)} == {"first", "second"}:
            better = a if ">" in sign else b
            return "tie" if "=" in sign else f"{side_of(better, tokens)}_wins"
    words = words_of(text) or (text,)
    joined = "_".join(words)
    if joined in WORDS["both_bad"] or ("both" in words and "bad" in words):
        return "both_bad"
    rest = [word for word in words if word not in WORDS["fillers"]]
    if joined in WORDS["tie"] or (rest and all(word in WORDS["tie"] for word in rest)):
        return "tie"
    side = side_of("_".join(rest), tokens) or side_of(joined, tokens)
    if side is None and text == "0" and "0" not in tokens:
        return "tie"
    return f"{side}_wins" if side else None


def side_of(word: str, tokens: Sequence[str]) -> str | None:
    """`first` or `second`, by the tokens of the fields, else by position."""
    if word in tokens:
        return ("first", "second")[list(tokens).index(word)] if list(tokens).index(word) < 2 else None
    if "0" in tokens and word.isdigit():
        return None
    return next((side for side, names in ORDINALS.items() if word in names), None)
