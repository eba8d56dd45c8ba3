"""Bounds in characters, ends included."""

from __future__ import annotations

from functools import partial

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.filter.length import length
from rlhf_lightning.flow import Edit, Feedback, Message, Thumbs


def one(response: str, prompt: str = "p") -> Feedback:
    return Feedback(prompt=prompt, responses=("ab", response), judgement=Edit())


def test_bounds(cleaned) -> None:
    good = [one("ab"), one("äöü"), one("ab", "ppp"), one("😀😀😀")]
    bad = [one(" a "), one("abcd"), one("ab", "pppp")]
    kept, cleaning = cleaned(partial(length, min_characters=2, max_characters=3, max_prompt_characters=3), good + bad)
    assert kept == good
    assert cleaning.removed == {
        "response shorter than 2 characters": 1,
        "response longer than 3 characters": 1,
        "prompt longer than 3 characters": 1,
    }


def test_bounds_that_cross() -> None:
    with pytest.raises(ConfigError, match="min_characters=3 is above max_characters=2"):
        list(length([], Cleaning(), min_characters=3, max_characters=2))


def test_a_chat_is_as_long_as_its_text_and_no_prompt_is_short_enough(cleaned) -> None:
    chat = Feedback(prompt=(Message(role="user", content="hi"),), responses=("ab",), judgement=Thumbs(up=True))
    none = chat.model_copy(update={"prompt": ""})
    size = len(chat.prompt_text)
    assert cleaned(partial(length, max_prompt_characters=size), [chat, none])[0] == [chat, none]
    assert cleaned(partial(length, max_prompt_characters=size - 1), [chat, none])[0] == [none]
