"""Text repaired, and text left alone."""

from __future__ import annotations

import pytest

from rlhf_lightning.feedback.filter.encoding import encoding
from rlhf_lightning.flow import Edit, Feedback


def one(text: str) -> Feedback:
    return Feedback(prompt=text, responses=("a", text), judgement=Edit(), origin="f:1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schÃ¶n", "schön"),
        ("itâ€™s", "it’s"),
        ("e\u0301", "é"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x07b\x00c\x7fd", "abcd"),
        ("10\x80", "10€"),
        ("Ã\x07©", "é"),
    ],
)
def test_repaired_and_counted(text: str, expected: str) -> None:
    cleaning = encoding([one(text), one("fine")])
    assert [(r.prompt, r.responses[1]) for r in cleaning.kept] == [(expected, expected), ("fine", "fine")]
    assert cleaning.changed == {"text repaired": 1}


@pytest.mark.parametrize(
    "text",
    [
        "tab\tand\nline",
        "“curly” ‘quotes’",
        "ﬁne ligature",
        "ｆｕｌｌ",
        "&lt;b&gt; &amp;",
        "👨‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "a\u202eb\u200f",
        "naïve Übung 猫 กา",
        "<|endoftext|>",
    ],
)
def test_left_alone(text: str) -> None:
    cleaning = encoding([one(text)])
    assert cleaning.kept == [one(text)]
    assert cleaning.changed == {}


def test_nothing_left_is_removed() -> None:
    cleaning = encoding([one("\x07\x08")])
    assert (cleaning.kept, cleaning.removed) == ([], {"blank without its control characters": 1})
