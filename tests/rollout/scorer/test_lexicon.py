"""The lexicon's formula by hand, and what it says of bad files."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.rollout.scorer.lexicon import LexiconScorer

VADER = "good\t1.9\t0.94\t[2, 1]\nGreat\t3.1\n\ndon't\t-1\nhorrible\t-2.5\ncafé\t0.5\n"


@pytest.fixture
def lexicon(tmp_path):
    """A scorer of the given lexicon, text or bytes."""

    def make(content: str | bytes = VADER, **settings) -> LexiconScorer:
        path = tmp_path / "lexicon.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return LexiconScorer(path=str(path), **settings)

    return make


@pytest.mark.parametrize(
    ("text", "total", "words"),
    [
        ("A good kettle.", 1.9, 3),
        ("GOOD, great; good!", 6.9, 3),
        ("I don't like it: horrible", -3.5, 5),
        ("goods good_good great-good", 1.9 * 3 + 3.1, 5),
        ("the café", 0.5, 2),
        ("nothing known", 0.0, 2),
        ("... !?", 0.0, 0),
        ("", 0.0, 0),
    ],
)
def test_scores_by_hand(lexicon, text, total, words):
    assert lexicon().score(text) == pytest.approx(total / math.sqrt(total**2 + 15))
    assert lexicon(alpha=2.0).score(text) == pytest.approx(total / math.sqrt(total**2 + 2))
    assert lexicon(normalise="mean").score(text) == pytest.approx(total / max(words, 1))


def test_a_rollout_is_scored_response_by_response(lexicon, scored_of):
    scorer = lexicon()
    responses = ["good", "horrible", "the"]
    scores = scorer(scored_of(torch.ones(3, 2), responses=responses, prompts=["great"] * 3))
    assert scores.tolist() == pytest.approx([scorer.score(text) for text in responses])
    assert scores[0] > 0 > scores[1]
    assert scorer.score("good " * 1000) < 1 == pytest.approx(scorer.score("good " * 1000), abs=1e-4)


@pytest.mark.parametrize("content", [VADER.replace("\n", "\r\n"), "\ufeff" + VADER], ids=["windows", "byte order mark"])
def test_lines_end_and_files_begin_as_editors_like(lexicon, content):
    assert lexicon(content).valence == lexicon().valence == {"good": 1.9, "great": 3.1, "don't": -1.0, "horrible": -2.5, "café": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("good\t1\nbad\n", r"lexicon\.txt:2: expected `word<tab>valence`, got 'bad'"),
        ("good\t1\n\nbad -1\n", r"lexicon\.txt:3: expected"),
        ("good\tvery\n", r"lexicon\.txt:1: expected"),
        ("good\tnan\n", r"lexicon\.txt:1: expected"),
        ("good\t1\nbad\t-inf\n", r"lexicon\.txt:2: expected"),
        ("good\t1\n\t2\n", r"lexicon\.txt:2: expected"),
        ("good\t\n", r"lexicon\.txt:1: expected"),
        ("\n \n", r"lexicon\.txt: no rows"),
        ("", r"lexicon\.txt: no rows"),
        (b"good\t1\ncaf" + b"\xe9\t1\n", r"lexicon\.txt:2: not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_its_line(lexicon, content, message):
    with pytest.raises(DataError, match=message):
        lexicon(content)


def test_a_missing_file_is_reported_with_its_key(tmp_path):
    with pytest.raises(DataError, match=r"rollout_scorer\.lexicon\.path: no lexicon file .*nowhere"):
        LexiconScorer(path=str(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match=r"rollout_scorer\.lexicon\.path: no lexicon file"):
        LexiconScorer(path=str(tmp_path))
