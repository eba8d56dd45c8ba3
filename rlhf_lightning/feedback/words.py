"""Normalisation of texts for comparison, words and word n-grams."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from rlhf_lightning.feedback.standardise import PIECES
from rlhf_lightning.flow import Prompt


def normalise_text(text: str) -> str:
    """Normalise Unicode form, case and white space, so that spellings of one prompt are equal."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """Split a text into casefolded words, or letters in scripts without spaces; punctuation is dropped."""
    pieces = PIECES.findall(unicodedata.normalize("NFC", text).casefold())
    return [piece for piece in pieces if piece[0] == "_" or unicodedata.category(piece[0])[0] in "LMN"]


def word_ngrams(words: Sequence[str], length: int) -> Iterator[str]:
    """Yield the n-grams of `length` words; all words as one n-gram if there are fewer."""
    for start in range(max(len(words) - length + 1, min(len(words), 1))):
        yield " ".join(words[start : start + length])


def prompt_content(prompt: Prompt) -> str:
    """Return a prompt's text, or a chat's messages joined without their roles."""
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)
