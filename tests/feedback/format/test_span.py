"""Stretches by their ends and by their text, against a plain search."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format._span import SpanReader, Unclear
from rlhf_lightning.feedback.row import Row


def read(text: str, unclear: Unclear = "refuse", **data: Any) -> tuple[int, int] | None:
    return SpanReader("spans", "span", unclear)(Row(data, "f:1"), text)


@given(st.text("ab", max_size=8), st.text("ab", max_size=3), st.sampled_from(get_args(Unclear)))
def test_found_as_by_trying_every_place(text: str, span: str, unclear: Unclear) -> None:
    dense_ranks = [i for i in range(len(text)) if span and text[i : i + len(span)] == span]
    is_first = len(dense_ranks) == 1 or (dense_ranks and unclear == "first")
    expected = (dense_ranks[0], dense_ranks[0] + len(span)) if is_first else None
    if expected is None and unclear == "refuse":
        with pytest.raises(DataError, match="several times" if dense_ranks else "nowhere"):
            read(text, unclear, span=span)
    else:
        assert read(text, unclear, span=span) == expected


def test_ends_come_before_the_text() -> None:
    assert read("abab", start=2, end=4) == (2, 4)
    assert read("abab", start=2, end=4, span="ab") == (2, 4)
    assert read("a🙂b", start=1, end=2, span="🙂") == (1, 2)


@pytest.mark.parametrize("unclear", get_args(Unclear))
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "'span' is missing, and so are"),
        ({"spann": "a"}, "did you mean 'spann'"),
        ({"span": 3}, "span must be text"),
        ({"start": 0}, "end must be a whole number from 0, not null"),
        ({"start": 0, "end": None}, "end must be a whole number"),
        ({"start": True, "end": 2}, "start must be a whole number from 0, not true"),
        ({"start": 0, "end": 2.0}, "end must be a whole number"),
        ({"start": -1, "end": 2}, "start must be a whole number from 0"),
        ({"start": 2, "end": 2}, "2 to 2 is not a span of the response of 4 characters"),
        ({"start": 0, "end": 5}, "not a span"),
        ({"start": 0, "end": 2, "span": "ba"}, "at 0 to 2 is text"),
    ],
)
def test_refused_whatever_is_chosen(data: dict[str, Any], words: str, unclear: Unclear) -> None:
    with pytest.raises(DataError, match=words):
        read("abab", unclear, **data)


def test_null_stands_nowhere() -> None:
    assert read("abab", "first", span=None) is None
    with pytest.raises(DataError, match=r"span is null, which is in the response nowhere; .*feedback_format.spans.unclear=first"):
        read("abab", span=None)
