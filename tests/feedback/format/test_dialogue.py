"""Dialogues whose turns were judged one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.dialogue import DialogueFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Message, Rating, Thumbs


def read(messages: Any, rest: dict[str, Any] | None = None, **settings: Any) -> list[Feedback] | None:
    return DialogueFormat(**({"scale": (1, 5)} | settings))(Row({"messages": messages} | (rest or {}), "f:1"))


def user(text: str, **rest: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **rest}


def bot(text: str, **rest: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **rest}


TALK = [user("u0"), bot("a1"), user("u2"), bot("a3")]


def test_each_rated_turn_answers_the_messages_before_it() -> None:
    found = read(
        [user("u0"), bot("a1", rating=2), user("u2"), bot("a3", rating=5)], {"annotator": "A", "model": "m", "seconds": 3}, aspect="wit"
    )
    messages = tuple(Message.model_validate(message) for message in TALK)
    rest: dict[str, Any] = {"annotator": "A", "models": ("m",), "seconds": 3.0, "origin": "f:1"}
    assert found == [
        Feedback(prompt=messages[:1], responses=("a1",), judgement=Rating(value=2, scale=(1, 5), aspect="wit", turn=1), **rest),
        Feedback(prompt=messages[:3], responses=("a3",), judgement=Rating(value=5, scale=(1, 5), aspect="wit", turn=3), **rest),
    ]


@given(st.lists(st.integers(1, 5) | st.none(), min_size=1, max_size=5))
def test_inside_the_messages_and_beside_them_is_the_same(ratings: list[int | None]) -> None:
    inside, beside = list[dict[str, Any]](), list[dict[str, Any]]()
    for i, rating in enumerate(ratings):
        inside += [user(f"u{i}"), bot(f"a{i}", rating=rating)]
        beside += [user(f"u{i}"), bot(f"a{i}")]
    listed = [value for rating in ratings for value in (None, rating)]
    found = read(inside) or []
    assert found == read(beside, {"ratings": listed})
    assert [(r.judgement.turn, r.judgement.value) for r in found if isinstance(r.judgement, Rating)] == [
        (i, value) for i, value in enumerate(listed) if value is not None
    ]


def test_the_list_comes_before_the_messages() -> None:
    (record,) = read([user("u"), bot("a", rating=1)], {"ratings": [None, 4]}) or []
    assert record.judgement == Rating(value=4, scale=(1, 5), turn=1)


def test_thumbs() -> None:
    talk = [user("u0"), bot("a1", ok=True), user("u2"), bot("a3", ok=False, rating=1)]
    found = read(talk, thumbs="ok") or []
    judged = [(record.responses[0], record.judgement) for record in found]
    assert judged == [("a3", Rating(value=1, scale=(1, 5), turn=3)), ("a1", Thumbs(up=True)), ("a3", Thumbs(up=False))]
    only = read([user("u"), bot("a", ok=True)], thumbs="ok", rating=None, ratings=None, scale=None) or []
    assert [record.judgement for record in only] == [Thumbs(up=True)]


def test_an_opening_answers_nothing() -> None:
    (record,) = read([bot("Hello", rating=3), user("Hi")]) or []
    assert record.prompt == ""


def test_a_dialogue_without_ratings() -> None:
    assert read(TALK) is None
    assert read([user("u"), bot("a", rating=None)]) == []
    assert read(TALK, {"ratings": [None] * 4}) == []
    assert read("text") is None
    assert read(None) is None


@pytest.mark.parametrize(
    ("messages", "rest", "words"),
    [
        ([user("u", rating=3)], {}, r"messages\[0\] is rated, but it is the user's"),
        ([user("u"), bot("a"), bot("b", rating=3)], {}, r"messages before the rated \[2\] ends with the assistant"),
        ([user("u"), bot("a", rating=6)], {}, r"messages\[1\].rating is 6, off the scale 1 to 5"),
        ([user("u"), bot("a", rating="3")], {}, r"messages\[1\].rating must be a finite number"),
        ([user("u"), bot("a", rating=3)], {"scale": [5, 1]}, r"scale must be \[lowest, highest\]"),
        ([user("u"), bot("a", rating=3, name="B")], {}, r"messages\[1\] holds name"),
        ([user("u"), "x", bot("a", rating=3)], {}, r"messages\[1\] must be a message"),
        (TALK, {"ratings": [3]}, "ratings has 1 items for 4 messages"),
        (TALK, {"ratings": [1, None, None, None]}, r"messages\[0\] is rated"),
        (TALK, {"ratings": [None, 9, None, None]}, r"ratings\[1\] is 9, off the scale"),
        ([user("u"), bot("a", ok=1)], {}, r"messages\[1\].ok must be true or false, not a number"),
    ],
)
def test_refused(messages: Any, rest: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(messages, rest, thumbs="ok")


def test_scales() -> None:
    with pytest.raises(DataError, match=r"feedback_format.dialogue.scale=\[LOWEST,HIGHEST\]"):
        read([user("u"), bot("a", rating=3)], scale=None)
    (record,) = read([user("u"), bot("a", rating=3)], {"scale": [0, 10]}) or []
    assert record.judgement == Rating(value=3, scale=(0, 10), turn=1)
    with pytest.raises(DataError, match="whole numbers"):
        read([user("u"), bot("a", rating=2.5)], integers_only=True)
    with pytest.raises(ConfigError, match="all null"):
        DialogueFormat(rating=None, ratings=None)
