"""Word n-grams against a plain count."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.reward.feature.ngrams import WordNGrams

TEXTS = [("", text) for text in ("the cat sat", "the cat ran", "a dog sat", "the the the", "the cat sat")]


def test_the_most_frequent_by_documents():
    family = WordNGrams(max_features=4, min_texts=2)
    family.fit(TEXTS)
    # Of four different responses: the 3, then by name cat, sat, the cat with 2 each.
    assert family.names == ["word: the", "word: cat", "word: sat", "word: the cat"]
    assert family("the prompt doesn't count", "The cat, the dog") == pytest.approx({0: math.log(3), 1: math.log(2), 3: math.log(2)})


@pytest.mark.parametrize(
    ("value", "expected"), [("presence", [1, 1]), ("share", [math.log(3) / math.hypot(math.log(3), math.log(2)), None])]
)
def test_values(value, expected):
    family = WordNGrams(orders=(1,), min_texts=2, value=value)
    family.fit(TEXTS)
    row = family("", "the cat the")
    assert row[0] == pytest.approx(expected[0])
    assert math.isclose(sum(v * v for v in row.values()), 1 if value == "share" else 2)


def test_what_every_text_has_says_nothing():
    family = WordNGrams(orders=(1,), min_texts=1)
    family.fit([("", "a b"), ("", "a c")])
    assert family.names == ["word: b", "word: c"]


@given(st.lists(st.text(alphabet="ab c", max_size=12), min_size=1, max_size=8))
def test_counts_and_order(texts):
    family = WordNGrams(
        orders=(
            1,
            2,
        ),
        min_texts=1,
    )
    family.fit([("", text) for text in texts])
    other = WordNGrams(
        orders=(
            2,
            1,
        ),
        min_texts=1,
    )
    other.fit([("", text) for text in reversed(texts)])
    assert family.names == other.names
    for text in texts:
        found = text.split()
        counts = Counter([*found, *(" ".join(pair) for pair in pairwise(found))])
        row = {family.names[at].removeprefix("word: "): value for at, value in family("", text).items()}
        assert row == {gram: pytest.approx(math.log1p(n)) for gram, n in counts.items() if f"word: {gram}" in family.names}


def test_orders_are_checked():
    with pytest.raises(ConfigError, match=r"reward_feature\.ngrams\.orders"):
        WordNGrams(orders=())
    with pytest.raises(ConfigError, match=r"reward_feature\.ngrams\.orders"):
        WordNGrams(
            orders=(
                0,
                1,
            )
        )
