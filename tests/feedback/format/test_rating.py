"""Ratings: one or a list, on the row's scale or the setting's."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Message, Rating

BASE: dict[str, Any] = {"prompt": "p", "response": "r"}


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return RatingFormat(**settings)(Row(BASE | data, "f:1"))


def said(data: dict[str, Any], **settings: Any) -> list[tuple[float, tuple[float, float], str | None]]:
    found = read(data, **settings) or []
    return [(r.judgement.value, r.judgement.scale, r.annotator) for r in found if isinstance(r.judgement, Rating)]


def test_one_rating() -> None:
    expected = Feedback(prompt="p", responses=("r",), judgement=Rating(value=4, scale=(1, 5)), annotator="anna", origin="f:1")
    assert read({"rating": 4, "scale": [1, 5], "annotator": "anna"}) == [expected]


def test_a_list_is_one_record_per_rater_and_comes_before_the_mean() -> None:
    assert said({"rating": 3.5, "ratings": [3, 4]}, scale=(0, 5)) == [(3, (0, 5), "rater0"), (4, (0, 5), "rater1")]
    assert said({"ratings": [3, 4], "annotator": ["anna", 7]}, scale=(0, 5)) == [(3, (0, 5), "anna"), (4, (0, 5), "7")]
    assert said({"rating": 3.5, "ratings": [3, 4]}, scale=(0, 5), ratings=None) == [(3.5, (0, 5), None)]


def test_the_rows_own_scale_comes_first() -> None:
    assert said({"rating": 4, "scale": [1, 5]}, scale=(0, 100)) == [(4, (1, 5), None)]
    assert said({"rating": 4, "scale": None}, scale=(0, 100)) == [(4, (0, 100), None)]


def test_a_field_inside_an_object() -> None:
    assert said({"ratings": {"overall": 2.5}}, rating="ratings.overall", ratings=None, scale=(0, 5)) == [(2.5, (0, 5), None)]


def test_an_aspect_a_turn_and_who_wrote_it() -> None:
    (record,) = read({"rating": 2, "turn": 3, "model": "m"}, scale=(0, 5), aspect="coherence", turn="turn") or []
    assert record.judgement == Rating(value=2, scale=(0, 5), aspect="coherence", turn=3)
    assert record.models == ("m",)


def test_an_item_of_a_list_that_the_source_took_apart() -> None:
    row = Row({"prompt": "p", "responses": {"text": "a", "ratings": {"quality": [3, 4]}}}, "f:1")
    found = RatingFormat(response="responses.text", ratings="responses.ratings.quality", scale=(0, 5))(row) or []
    assert [(r.responses, r.annotator) for r in found] == [(("a",), "rater0"), (("a",), "rater1")]


def test_a_chat_and_a_text_by_itself() -> None:
    (record,) = read({"prompt": [{"role": "user", "content": "x"}], "rating": 1}, scale=(0, 5)) or []
    assert record.prompt == (Message(role="user", content="x"),)
    (record,) = read({"rating": 1}, scale=(0, 5), prompt=None) or []
    assert record.prompt == ""


def test_not_mine() -> None:
    assert read({}) is None
    assert read({"ratings": None, "rating": None}) is None


def test_whole_numbers_if_set() -> None:
    assert said({"rating": 4.0}, scale=(1, 5), integers_only=True) == [(4, (1, 5), None)]
    with pytest.raises(DataError, match=r"rating is 3\.5.*integers_only"):
        read({"rating": 3.5}, scale=(1, 5), integers_only=True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rating": 4}, "no scale"),
        ({"rating": 4, "scale": [5, 1]}, r"must be \[lowest, highest\]"),
        ({"rating": 4, "scale": [1, "5"]}, r"scale\[1\] must be a finite number"),
        ({"rating": 4, "scale": 5}, "scale must be a list"),
        ({"ratings": [], "scale": [1, 5]}, "ratings is an empty list"),
        ({"ratings": [1, None], "scale": [1, 5]}, r"ratings\[1\] must be a finite number, not null"),
        ({"ratings": [1, 9], "scale": [1, 5]}, r"ratings\[1\] is 9, off the scale 1 to 5"),
        ({"ratings": {"overall": 1}, "scale": [1, 5]}, "ratings must be a list, not an object"),
        ({"ratings": [1, 2], "scale": [1, 5], "annotator": ["a"]}, "annotator has 1 items for 2 ratings"),
        ({"ratings": [1], "scale": [1, 5], "annotator": "anna"}, "annotator must be a list"),
        ({"rating": float("inf"), "scale": [1, 5]}, "rating must be a finite number"),
        ({"rating": 10, "scale": [1, 5]}, "rating is 10, off the scale 1 to 5"),
        ({"rating": 2, "scale": [1, 5], "at": True}, "at must be a whole number from 0, not true"),
    ],
)
def test_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data, turn="at")


def test_a_setting_that_is_no_scale() -> None:
    with pytest.raises(ConfigError, match="lowest, highest"):
        RatingFormat(scale=(5, 5))


def test_a_column_per_rater_is_a_rating_by_its_name_where_it_is_filled() -> None:
    form = RatingFormat(raters=("ada", "ratings.ben"), scale=(1, 5))
    both = form(Row({"prompt": "p", "response": "r", "ada": 4, "ratings": {"ben": 2}}, "f:1")) or []
    assert [(record.annotator, record.judgement) for record in both] == [
        ("ada", Rating(value=4, scale=(1, 5))),
        ("ben", Rating(value=2, scale=(1, 5))),
    ]
    assert [record.annotator for record in form(Row({"prompt": "p", "response": "r", "ada": 4}, "f:2")) or []] == ["ada"]
    assert form(Row({"prompt": "p", "response": "r"}, "f:3")) == []
    assert form(Row({"weather": "fine"}, "f:4")) is None


def test_words_are_numbered_and_a_chat_is_rated_as_a_unit() -> None:
    chat = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Thanks!"}]
    form = RatingFormat(messages="chat", rating="grade", words={"poor": 1, "very good": 5}, scale=(1, 5))
    (record,) = form(Row({"chat": chat, "grade": "very good"}, "f:1")) or []
    assert record.prompt == (Message(role="user", content="Hi?"),)
    assert (record.responses, record.judgement) == (("Hello.",), Rating(value=5, scale=(1, 5)))
