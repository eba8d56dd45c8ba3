"""When two texts are the same, and what their words are."""

from __future__ import annotations

import pytest

from rlhf_lightning.feedback.words import normalise_text, prompt_content, word_ngrams, words_of
from rlhf_lightning.flow import Message


def test_plain() -> None:
    assert normalise_text(" Stra\u00dfe\u00a0E\u0301\n\tx ") == "strasse é x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 2,5 — _a_b!", ["it", "s", "2", "5", "_a_b"]),
        ("我爱 lamp", ["我", "爱", "lamp"]),
        ("E\u0301te", ["éte"]),
        ("?! ", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


def test_runs() -> None:
    words = ["a", "b", "c", "d"]
    assert list(word_ngrams(words, 3)) == ["a b c", "b c d"]
    assert list(word_ngrams(words, 4)) == list(word_ngrams(words, 9)) == ["a b c d"]
    assert list(word_ngrams([], 3)) == []


def test_prompt_content() -> None:
    assert prompt_content("a") == "a"
    assert prompt_content((Message(role="user", content="a"), Message(role="assistant", content="b"))) == "a\nb"
