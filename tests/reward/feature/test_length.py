"""Lengths by hand."""

from __future__ import annotations

import math

import pytest

from rlhf_lightning.reward.feature.length import Length


def test_by_hand():
    found = dict(zip(Length.names, Length()("abcdef", "One two. Three!\nfour"), strict=True))
    assert found == pytest.approx(
        {
            "log characters": math.log(21),
            "log characters squared": math.log(21) ** 2,
            "log words": math.log(5),
            "log sentences": math.log(4),
            "log lines": math.log(3),
            "distance from the prompt's length": math.log(21 / 7),
        }
    )


def test_nothing_has_no_length():
    assert Length()("", "") == [0.0] * 6
