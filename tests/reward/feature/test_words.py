"""Words in many scripts."""

from __future__ import annotations

import pytest

from rlhf_lightning.reward.feature._words import numbers, sentences, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, you’re in_time!", ("don't", "stop", "you're", "in", "time")),
        ("नेपाली भाषा।", ("नेपाली", "भाषा")),
        ("中文 ok", ("中", "文", "ok")),
        ("שָׁלוֹם עולם", ("שָׁלוֹם", "עולם")),
        ("🙂 ... ", ()),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "count"), [("One. Two? Three", 3), ("3.5 apples", 1), ("一。二！", 2), ("", 0), ("...!", 0), ("a\n\nb", 2)]
)
def test_sentences(text, count):
    assert sentences(text) == count


def test_numbers():
    assert numbers("1,200.50 and 7. 3.5.") == ["1200.50", "7", "3.5"]
