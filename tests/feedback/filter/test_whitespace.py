"""Blanks that nobody sees, and blanks that mean something."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.filter.whitespace import strip_blanks, whitespace
from rlhf_lightning.flow import Edit, Feedback, Message, Thumbs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \n", "a"),
        ("\u00a0\u200b\ufeffa\u3000", "a"),
        ("a \t\nb\u00a0\n\n c", "a\nb\n\n c"),
        ("a\n\n\n\n\nb", "a\n\n\nb"),
        ("a\n \n\t\n \n \nb", "a\n\n\nb"),
        ("a\n\n\nb", "a\n\n\nb"),
        ("\n\n  one line", "one line"),
        ("\n    if x:\n        y\n", "    if x:\n        y"),
        ("a  b\tc", "a  b\tc"),
        ("a\r\n", "a\r"),
        ("می\u200cخواهم\u200c", "می\u200cخواهم\u200c"),
    ],
)
def test_tidied(text: str, expected: str) -> None:
    assert strip_blanks(text) == expected


def test_the_start_stays_where_it_goes_on_from_the_prompt() -> None:
    assert strip_blanks(" a lamp. \n", start=False) == " a lamp."


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab \t\n\u00a0\u200b\r", max_size=20), st.booleans())
def test_only_blanks_go_and_no_word_moves_over_a_line(text: str, start: bool) -> None:
    after = strip_blanks(text, start)
    assert strip_blanks(after, start) == after
    assert "\n\n\n\n" not in after
    assert not any(line != line.rstrip(" \t\u00a0\u200b") for line in after.split("\n"))
    lines = [line.strip(" \t\u00a0\u200b") for line in text.split("\n")]
    assert [line for line in lines if line] == [line.strip(" \t\u00a0\u200b") for line in after.split("\n") if line]


def test_a_long_run_of_blanks_inside_is_no_trouble() -> None:
    text = "a" + " " * 200_000 + "b"
    assert strip_blanks(text) == text


def test_prompts_stay_unless_requested(cleaned) -> None:
    chat = (Message(role="user", content=" hi "),)
    records = [
        Feedback(prompt="Review:\n", responses=("a ", "b"), judgement=Edit(), origin="f:1"),
        Feedback(prompt=chat, responses=("a",), judgement=Thumbs(up=True)),
        Feedback(prompt="p", responses=(" \n",), judgement=Thumbs(up=True)),
    ]
    kept, cleaning = cleaned(whitespace, records)
    assert [(record.prompt, record.responses) for record in kept] == [("Review:\n", ("a", "b")), (chat, ("a",))]
    assert (cleaning.removed, cleaning.changed) == ({"nothing but blanks": 1}, {"blanks taken out": 1})
    kept, _ = cleaned(partial(whitespace, prompts=True), records)
    assert [record.prompt_text for record in kept] == ["Review:", "User: hi\nAssistant:"]
