"""Character n-grams against a plain count."""

from __future__ import annotations

import math

import pytest

from rlhf_lightning.reward.feature.character_ngrams import CharacterNGrams


def test_ends_and_blanks_are_characters():
    family = CharacterNGrams(orders=(2,), min_texts=1)
    family.fit([("", "a a"), ("", "b.")])
    assert set(family.names) == {f"characters: {gram!r}" for gram in ("\x02a", "a ", " a", "a\x03", "\x02b", "b.", ".\x03")}
    row = {family.names[at]: value for at, value in family("", "a a a").items()}
    assert row == pytest.approx(
        {
            f"characters: {gram!r}": value
            for gram, value in (("\x02a", math.log(2)), ("a ", math.log(3)), (" a", math.log(3)), ("a\x03", math.log(2)))
        }
    )


def test_a_restored_one_is_the_same():
    family, other = CharacterNGrams(min_texts=1), CharacterNGrams(min_texts=1)
    family.fit([("", "你好吗"), ("", "שלום")])
    other.load_state(family.state())
    assert other.names == family.names
    assert other("", "你好") == family("", "你好") != {}
