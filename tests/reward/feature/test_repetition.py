"""Repetition by hand, and of loops."""

from __future__ import annotations

import pytest

from rlhf_lightning.reward.feature.repetition import Repetition


def of(response: str) -> dict[str, float]:
    return dict(zip(Repetition.names, Repetition()("", response), strict=True))


def test_by_hand():
    found = of("a b a b\nc c c\na b a b")
    assert found["repeated words"] == pytest.approx(8 / 11)
    assert found["repeated word pairs"] == pytest.approx(1 - 5 / 10)  # ab ba bc cc ca
    assert found["repeated lines"] == pytest.approx(1 / 3)
    assert found["longest run of one word"] == pytest.approx(2 / 11)


def test_a_loop_is_compressed_and_a_plain_sentence_is_not():
    assert of("the cat sat down and then " * 30)["compression"] > 0.8
    assert of("Quick foxes jump over lazy dogs.")["compression"] < 0.1


def test_a_message_logged_once_is_not_repeated():
    assert list(of("every word stands here once").values())[:4] == [0, 0, 0, 0]
    assert list(of("").values())[:4] == [0, 0, 0, 0]
