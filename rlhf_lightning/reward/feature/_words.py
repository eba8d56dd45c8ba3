"""Words, sentences and numbers of texts, for every script."""

from __future__ import annotations

import re
from functools import lru_cache

# Scripts written without spaces: Thai, Lao, Burmese, Khmer, kana, Chinese. One character counts as a word.
_ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
# Vowel signs and points belong to their word, and Python's \w doesn't know them.
_MARKS = r"\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_LETTER = rf"(?:[^\W_{_ALONE}]|[{_MARKS}])"
_WORD = re.compile(rf"[{_ALONE}]|{_LETTER}+(?:'{_LETTER}+)*")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|[\"'”’)])|[。！？।؟]|\n\s*\n")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

CACHED = 4096
"""Number of texts whose words are cached for several families."""


@lru_cache(CACHED)
def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case; a word keeps its apostrophes, straight ones."""
    return tuple(_WORD.findall(text.lower().replace("’", "'")))


def sentences(text: str) -> int:
    """Number of sentences: parts with a word between sentence ends or blank lines."""
    return sum(1 for part in _SENTENCE_END.split(text) if _WORD.search(part))


def numbers(text: str) -> list[str]:
    """The numbers of a text as they are written, without commas: "1,200.50" is "1200.50"."""
    return [number.replace(",", "") for number in _NUMBER.findall(text)]


def share(part: float, total: float) -> float:
    """part / total; 0 for a total of 0."""
    return part / total if total else 0.0
