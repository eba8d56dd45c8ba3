"""Ratings of several aspects, as HelpSteer, UltraFeedback, USR and RankME have them."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.attributes import AttributesFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Rating

BASE: dict[str, Any] = {"prompt": "p", "response": "r"}
STEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
Said = tuple[str | None, float, tuple[float, float], str | None]


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return AttributesFormat(**settings)(Row(data, "f:1"))


def said(data: dict[str, Any], **settings: Any) -> list[Said]:
    found = read(BASE | data, **settings) or []
    ratings = [(record.judgement, record.annotator) for record in found]
    return [(r.aspect, r.value, r.scale, who) for r, who in ratings if isinstance(r, Rating)]


def test_fields_of_the_row() -> None:
    row = BASE | dict(zip(STEER, (3, 4, 4, 2, 0), strict=True))
    expected = [
        Feedback(prompt="p", responses=("r",), judgement=Rating(value=value, scale=(0, 4), aspect=aspect), origin="f:1")
        for aspect, value in zip(STEER, (3, 4, 4, 2, 0), strict=True)
    ]
    assert read(row, ratings=None, aspects=STEER, scale=(0, 4)) == expected


def ultra(**ratings: Any) -> dict[str, Any]:
    """A row of UltraFeedback after the source took the completions apart."""
    annotations = {aspect: {"Rating": rating, "Rationale": "..."} for aspect, rating in ratings.items()}
    return {"instruction": "p", "completions": {"response": "r", "model": "m", "annotations": annotations, "overall_score": 10}}


ULTRA: dict[str, Any] = {
    "prompt": "instruction",
    "response": "completions.response",
    "model": "completions.model",
    "ratings": "completions.annotations",
    "value_field": "Rating",
    "text_numbers": True,
    "scale": (1, 5),
}


def test_ultrafeedback_s_text_in_objects() -> None:
    found = read(ultra(honesty="4", truthfulness="N/A", helpfulness="5"), **ULTRA) or []
    assert [(r.prompt, r.responses, r.models, r.judgement) for r in found] == [
        ("p", ("r",), ("m",), Rating(value=4, scale=(1, 5), aspect="honesty")),
        ("p", ("r",), ("m",), Rating(value=5, scale=(1, 5), aspect="helpfulness")),
    ]
    assert read(ultra(honesty="N/A"), **ULTRA) == []


@pytest.mark.parametrize("text", ["", " 4", "4.0", "4 ", "four", "n/a", "٤", "1e0", "+4", "4\n"])
def test_text_that_is_no_whole_number(text: str) -> None:
    with pytest.raises(DataError, match=r"completions\.annotations\.honesty\.Rating must be a whole number as text"):
        read(ultra(honesty=text), **ULTRA)


def test_text_is_no_number_unless_set() -> None:
    with pytest.raises(DataError, match=r"Rating must be a finite number, not text \('4'\)"):
        read(ultra(honesty="4"), **ULTRA | {"text_numbers": False})
    assert len(read(ultra(honesty=4), **ULTRA) or []) == 1


def test_the_overall_score_of_ten_is_refused() -> None:
    settings = ULTRA | {"ratings": "completions", "aspects": ("overall_score",), "value_field": None}
    with pytest.raises(DataError, match=r"completions\.overall_score is 10, off the scale 1 to 5"):
        read(ultra(honesty="4"), **settings)


def test_all_of_an_object_each_on_its_own_scale() -> None:
    data = {"ratings": {"overall": 5.0, "grounded": 1.0, "fluency": None}}
    assert said(data, scale=(1, 5), scales={"grounded": (0, 1)}) == [("overall", 5, (1, 5), None), ("grounded", 1, (0, 1), None)]
    assert said(data, aspects=("overall", "fluency"), scale=(1, 5)) == [("overall", 5, (1, 5), None)]


def test_lists_are_one_rating_per_rater_and_may_differ_in_length() -> None:
    found = said({"ratings": {"quality": [100, 90], "naturalness": [80]}}, scale=(0, 100))
    assert found == [
        ("quality", 100, (0, 100), "rater0"),
        ("quality", 90, (0, 100), "rater1"),
        ("naturalness", 80, (0, 100), "rater0"),
    ]
    named = said({"ratings": {"quality": [100, 90]}, "annotator": ["anna", 7]}, scale=(0, 100))
    assert [who for *_, who in named] == ["anna", "7"]


def test_not_mine() -> None:
    assert read(BASE, scale=(0, 4)) is None
    assert read(BASE | {"ratings": None}, scale=(0, 4)) is None
    assert read(BASE | {"ratings": {"a": None}}, scale=(0, 4)) is None
    assert read(BASE, ratings=None, aspects=("helpfulness",), scale=(0, 4)) is None


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        ({"ratings": {"a": 9}}, {"scale": (1, 5)}, r"ratings\.a is 9, off the scale 1 to 5"),
        ({"ratings": {"a": True}}, {"scale": (0, 1)}, r"ratings\.a must be a finite number, not true"),
        ({"ratings": {"a": [1, None]}}, {"scale": (0, 1)}, r"ratings\.a\[1\] must be a finite number, not null"),
        ({"ratings": {"a": []}}, {"scale": (0, 1)}, r"ratings\.a is an empty list"),
        ({"ratings": [1]}, {"scale": (0, 1)}, "ratings must be an object, not a list"),
        ({"ratings": {"a": 1}}, {}, r"no scale for 'a'"),
        ({"ratings": {"quality": 1}}, {"aspects": ("quality", "coherence"), "scale": (0, 1)}, r"'ratings\.coherence' is missing"),
        (
            {"ratings": {"quality": 1, "coherance": 1}},
            {"aspects": ("quality", "coherence"), "scale": (0, 1)},
            "did you mean 'coherance'",
        ),
        ({"ratings": {"a": {"Score": 1}}}, {"value_field": "Rating", "scale": (0, 1)}, r"'ratings\.a\.Rating' is missing"),
        ({"ratings": {"a": 1}}, {"value_field": "Rating", "scale": (0, 1)}, r"ratings\.a must be an object"),
        ({"ratings": {"a": 1}, "response": " "}, {"scale": (0, 1)}, "response is blank"),
    ],
)
def test_refused(data: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(BASE | data, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": (5, 5)}, "lowest, highest"),
        ({"scales": {"a": (2, 1)}}, r"attributes\.scales\.a must be \[lowest, highest\]"),
        ({"ratings": None, "scale": (0, 4)}, "aspects="),
        ({"aspects": ("a", "b"), "scales": {"a": (0, 1)}}, "no scale for 'b'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AttributesFormat(**settings)
