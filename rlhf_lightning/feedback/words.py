"""When two texts are the same, and what their words are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from rlhf_lightning.feedback.standardise import PIECES
from rlhf_lightning.flow import Prompt


def plain(text: str) -> str:
    """The text without its Unicode form, case and white space: what two spellings of one prompt have in common."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def words_of(text: str) -> list[str]:
    """The words of a text, without case; letter by letter in scripts that are written without spaces. Marks and blanks are none."""
    pieces = PIECES.findall(unicodedata.normalize("NFC", text).casefold())
    return [piece for piece in pieces if piece[0] == "_" or unicodedata.category(piece[0])[0] in "LMN"]


def runs_of(words: Sequence[str], length: int) -> Iterator[str]:
    """Every run of so many words that follow each other; all of them as one where there are fewer, nothing where there are none."""
    for start in range(max(len(words) - length + 1, min(len(words), 1))):
        yield " ".join(words[start : start + length])


def said(prompt: Prompt) -> str:
    """What a prompt says: a text, or the messages of a chat without the names of their roles."""
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)
