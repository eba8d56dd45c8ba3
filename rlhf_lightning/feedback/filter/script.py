"""Responses in an unwanted script."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.words import prompt_content
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
def script(feedback: Iterable[Feedback], cleaning: Cleaning, *, allowed: tuple[Script, ...] = ()) -> Iterator[Feedback]:
    """Remove records with a response in a script that isn't allowed, such as Cyrillic for Latin.

    A text's script is that of most of its letters, by their Unicode names; Han letters count as Japanese in texts with kana. If two
    scripts have equally many letters, one allowed script is enough. Texts without letters pass.

    Args:
        allowed: the scripts; by default the prompt's (all pass if it has no letters). Set it for translations.
    """
    for record in feedback:
        accepted = frozenset[str](allowed) or scripts_of(prompt_content(record.prompt))
        detected = [scripts_of(text) for text in record.responses]
        foreign = next((scripts for scripts in detected if accepted and scripts and not scripts & accepted), None)
        if foreign is None:
            yield record
        else:
            cleaning.remove(record, f"response in {' and '.join(sorted(foreign))} script")


def scripts_of(text: str) -> frozenset[str]:
    """Return the script of most letters; several if they are equally many, none without letters."""
    if text.isascii():
        return frozenset(["Latin"] if any(map(str.isalpha, text)) else [])
    counts: Counter[str] = Counter()
    for letter, count in Counter(text).items():
        if (name := _script(letter)) is not None:
            counts[name] += count
    if counts["Japanese"] and counts["Han"]:
        counts["Japanese"] += counts.pop("Han")
    highest = max(counts.values(), default=0)
    return frozenset(name for name, count in counts.items() if count == highest > 0)


@cache
def _script(letter: str) -> str | None:
    """Return a letter's script; None for other characters and for letters without one, such as modifiers."""
    if not letter.isalpha():
        return None
    words = unicodedata.name(letter, "").split(" ")
    first = words[1] if words[0] in _WIDTHS and len(words) > 1 else words[0]
    return (
        None if first in ("", "MODIFIER", "MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER") else _NAMES.get(first, first.title())
    )
