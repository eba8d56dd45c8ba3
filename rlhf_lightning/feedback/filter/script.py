"""Leaves out responses in another script than was asked for."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.words import said
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

Script = Literal[
    "Arabic", "Armenian", "Bengali", "Cherokee", "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek", "Gujarati", "Gurmukhi", "Han",
    "Hangul", "Hebrew", "Japanese", "Javanese", "Kannada", "Khmer", "Lao", "Latin", "Malayalam", "Mongolian", "Myanmar", "Oriya", "Sinhala",
    "Syriac", "Tamil", "Telugu", "Thaana", "Thai", "Tibetan", "Tifinagh",
]  # fmt: skip
# By the first words of a letter's Unicode name, where they aren't the script's own name.
_NAMES = {"CJK": "Han", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "KATAKANA-HIRAGANA": "Japanese"}
_WIDTHS = ("FULLWIDTH", "HALFWIDTH")


@register("feedback_filter", "script")
def script(feedback: Iterable[Feedback], done: Cleaning, *, allowed: tuple[Script, ...] = ()) -> Iterator[Feedback]:
    """Removes records with a response whose script isn't allowed: a Cyrillic answer to a question in Latin letters.

    A text's script is the one that most of its letters are in, by their Unicode names; Han letters count as Japanese where kana stand
    beside them. Where two scripts are equally many, one that is allowed is enough. Texts without letters pass.

    Args:
        allowed: the scripts; none given: the prompt's own (all pass where it has no letters). Translations need them given.
    """
    for record in feedback:
        wanted = frozenset[str](allowed) or scripts_of(said(record.prompt))
        found = [scripts_of(text) for text in record.responses]
        strange = next((scripts for scripts in found if wanted and scripts and not scripts & wanted), None)
        if strange is None:
            yield record
        else:
            done.remove(record, f"response in {' and '.join(sorted(strange))} script")


def scripts_of(text: str) -> frozenset[str]:
    """The script of most of the text's letters; more than one where they are equally many, none without letters."""
    if text.isascii():
        return frozenset(["Latin"] if any(map(str.isalpha, text)) else [])
    counts: Counter[str] = Counter()
    for letter, times in Counter(text).items():
        if (name := _script(letter)) is not None:
            counts[name] += times
    if counts["Japanese"] and counts["Han"]:
        counts["Japanese"] += counts.pop("Han")
    most = max(counts.values(), default=0)
    return frozenset(name for name, times in counts.items() if times == most > 0)


@cache
def _script(letter: str) -> str | None:
    """None for what isn't a letter, and for letters of no script, such as modifiers and those of formulas."""
    if not letter.isalpha():
        return None
    words = unicodedata.name(letter, "").split(" ")
    first = words[1] if words[0] in _WIDTHS and len(words) > 1 else words[0]
    return (
        None if first in ("", "MODIFIER", "MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER") else _NAMES.get(first, first.title())
    )
