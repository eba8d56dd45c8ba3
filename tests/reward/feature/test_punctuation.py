"""Marks by hand."""

from __future__ import annotations

import pytest

from rlhf_lightning.reward.feature.punctuation import Punctuation


def of(response: str) -> dict[str, float]:
    return dict(zip(Punctuation.names, Punctuation()("", response), strict=True))


def test_by_hand():
    found = of("Oh , no!  (WHY?) ")
    expected = {
        "commas": 1 / 17,
        "exclamation marks": 1 / 17,
        "question marks": 1 / 17,
        "brackets": 2 / 17,
        "capitals": 4 / 17,
        "blank before a mark": 1 / 17,
        "blanks in a row": 1 / 17,
        "begins with a capital": 1,
        "ends like a sentence": 1,
        "trailing blank": 1,
    }
    assert found == pytest.approx(dict.fromkeys(Punctuation.names, 0.0) | expected)


@pytest.mark.parametrize("text", ["Done.", "Really?", 'He said "yes."', "完了。", "done…\n"])
def test_ends_of_sentences(text):
    assert of(text)["ends like a sentence"] == 1


@pytest.mark.parametrize("text", ["", "cut off in the", "a. b"])
def test_texts_that_stop(text):
    assert of(text)["ends like a sentence"] == 0
