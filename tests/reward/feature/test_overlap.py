"""Overlap by hand."""

from __future__ import annotations

import pytest

from rlhf_lightning.reward.feature.overlap import Overlap


def test_by_hand():
    found = dict(zip(Overlap.names, Overlap(run=2)("Buy 3 red apples for $1,200", "red apples cost 1200 or 7"), strict=True))
    assert found == pytest.approx(
        {
            "words from the prompt": 2 / 6,  # the commas of 1,200 part its words, not the number
            "the prompt's words taken up": 2 / 7,
            "copied runs": 1 / 5,
            "numbers from the prompt": 1 / 2,
            "the prompt's numbers taken up": 1 / 2,
        }
    )


def test_without_a_prompt_nothing_is_taken():
    assert Overlap()("", "some words 12") == [0.0] * 5
    assert Overlap()("some words 12", "") == [0.0] * 5


def test_a_copy_takes_all():
    text = "seven words that are copied from here 5"
    assert Overlap()(text, text) == [1.0] * 5
