"""Readability by hand."""

from __future__ import annotations

import pytest

from rlhf_lightning.reward.feature.readability import Readability


def test_by_hand():
    assert Readability()("", "It is simple. Complicated matters follow.") == pytest.approx([34 / 6, 3, 2 / 6])


def test_texts_without_words():
    assert Readability()("", "?!") == [0, 0, 0]
