"""Bounds in characters, ends included."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.filter.length import length
from rlhf_lightning.flow import Edit, Feedback


def one(response: str, prompt: str = "p") -> Feedback:
    return Feedback(prompt=prompt, responses=("ab", response), judgement=Edit())


def test_bounds() -> None:
    good = [one("ab"), one("äöü"), one("ab", "ppp"), one("😀😀😀")]
    bad = [one(" a "), one("abcd"), one("ab", "pppp")]
    cleaning = length(good + bad, min_characters=2, max_characters=3, max_prompt=3)
    assert cleaning.kept == good
    assert cleaning.removed == {
        "response shorter than 2 characters": 1,
        "response longer than 3 characters": 1,
        "prompt longer than 3 characters": 1,
    }


def test_bounds_that_cross() -> None:
    with pytest.raises(ConfigError, match="min_characters=3 is above max_characters=2"):
        length([], min_characters=3, max_characters=2)
