"""The sentiment of comments."""

from __future__ import annotations

from rlhf_lightning.feedback.comment.vader import vader


def test_praise_is_above_blame_and_plain_words_are_neither() -> None:
    assert vader("A wonderful, clear and helpful summary!") > 0.5
    assert vader("Terrible: wrong, confusing and useless.") < -0.5
    assert vader("It is about a moon.") == 0


def test_negation_is_heard() -> None:
    assert vader("This is not good.") < 0 < vader("This is good.")
