"""A list of words, kept with the model."""

from __future__ import annotations

import math

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.reward.feature.lexicon import Lexicon


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("good\t2\nbad\t-1\ndon't\t-0.5\n")
    return path


def test_by_hand(words):
    lexicon = Lexicon(path=str(words))
    lexicon.fit([])
    assert lexicon("", "Good, GOOD and bad; don’t!") == pytest.approx([2.5 / math.sqrt(2.5**2 + 15), 0.5, 2 / 5, 2 / 5])
    assert lexicon("good", "") == [0, 0, 0, 0]


def test_a_restored_one_needs_no_file(words):
    lexicon = Lexicon(path=str(words))
    lexicon.fit([])
    words.unlink()
    other = Lexicon(path=str(words))
    other.load_state(lexicon.state())
    assert other("", "a good bad day") == lexicon("", "a good bad day")
    with pytest.raises(DataError, match=r"reward_feature\.lexicon\.path: no lexicon file"):
        other.fit([])
