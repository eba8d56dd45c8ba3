"""Rankings: places beside texts, or places and scores inside objects."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.ranking import RankingFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Message, Ranking


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return RankingFormat(**settings)(Row({"prompt": "p"} | data, "f:1"))


def ranks(data: dict[str, Any], **settings: Any) -> list[tuple[int | None, ...]]:
    return [r.judgement.ranks for r in read(data, **settings) or [] if isinstance(r.judgement, Ranking)]


def objects(field: str, *values: Any) -> dict[str, Any]:
    return {"responses": [{"text": f"r{i}", field: value} for i, value in enumerate(values)]}


def test_places_beside_texts() -> None:
    expected = Feedback(prompt="p", responses=("a", "b", "c"), judgement=Ranking(ranks=(1, 0, 2)), annotator="anna", origin="f:1")
    assert read({"responses": ["a", "b", "c"], "ranking": [2, 1, 3], "annotator": "anna"}) == [expected]
    assert ranks({"responses": ["a", "b"], "places": [7, 7]}, ranks="places") == [(0, 0)]


def test_only_the_order_of_places_counts() -> None:
    assert ranks({"responses": ["a", "b", "c"], "ranking": [1, 3, 3]}) == ranks({"responses": ["a", "b", "c"], "ranking": [-5, 0, 0]})


def test_objects_with_places() -> None:
    (record,) = read(objects("rank", 1, 0, 1)) or []
    assert (record.responses, record.judgement) == (("r0", "r1", "r2"), Ranking(ranks=(1, 0, 1)))


def test_objects_with_scores_higher_is_better() -> None:
    assert ranks(objects("s", 0.5, 2, 0.5), score_field="s") == [(1, 0, 1)]
    assert ranks(objects("s", True, False), score_field="s") == [(0, 1)]
    assert ranks(objects("s", {"q": 1}, {"q": 2}), score_field="s.q") == [(1, 0)]


def test_scores_of_several_raters_are_several_rankings() -> None:
    found = read(objects("s", [1, 5], [2, 4]), score_field="s") or []
    assert [(r.annotator, r.judgement) for r in found] == [("rater0", Ranking(ranks=(1, 0))), ("rater1", Ranking(ranks=(0, 1)))]


def test_a_null_place_is_unranked() -> None:
    assert ranks({"responses": ["a", "b", "c"], "ranking": [2, None, 1]}) == [(1, None, 0)]
    assert ranks(objects("rank", 1, 1, None)) == [(0, 0, None)]
    assert ranks(objects("s", 3.5, None, 4), score_field="s") == [(1, None, 0)]
    assert ranks(objects("s", False, None, True), score_field="s") == [(1, None, 0)]


def test_a_rater_without_ratings_makes_no_ranking() -> None:
    found = read(objects("s", [1, None, 5], [2, None, 4]), score_field="s") or []
    assert [(r.annotator, r.judgement) for r in found] == [("rater0", Ranking(ranks=(1, 0))), ("rater2", Ranking(ranks=(0, 1)))]


REVIEWS = {
    "responses": [
        {"text": "a", "reviews": [{"who": "x", "rank": 1}, {"who": "y", "rank": 2}]},
        {"text": "b", "reviews": [{"who": "x", "rank": 2}, {"who": "y", "rank": 1}]},
    ]
}


def test_ranks_through_a_list_of_reviews_with_the_raters_names() -> None:
    found = read(REVIEWS, rank_field="reviews.rank", rater_field="reviews.who") or []
    assert [(r.annotator, r.judgement) for r in found] == [("x", Ranking(ranks=(0, 1))), ("y", Ranking(ranks=(1, 0)))]
    assert [r.annotator for r in read(REVIEWS, rank_field="reviews.rank") or []] == ["rater0", "rater1"]
    assert [r.annotator for r in read(REVIEWS | {"annotator": ["u", 7]}, rank_field="reviews.rank") or []] == ["u", "7"]


def test_one_rater_named_in_each_response() -> None:
    data = {"responses": [{"text": "a", "rank": 1, "who": 5}, {"text": "b", "rank": 0, "who": 5}]}
    assert [r.annotator for r in read(data, rater_field="who") or []] == ["5"]


def test_models_and_what_stands_beside() -> None:
    data = {"responses": [{"text": "a", "rank": 1, "by": "m"}, {"text": "b", "rank": 0}], "annotator": "anna", "seconds": 3}
    (record,) = read(data, model_field="by") or []
    assert (record.models, record.annotator, record.seconds) == (("m", None), "anna", 3)
    (record,) = read(data) or []
    assert record.models is None


def test_a_chat_and_texts_by_themselves() -> None:
    data = objects("rank", 0, 1) | {"prompt": [{"role": "user", "content": "x"}]}
    (record,) = read(data) or []
    assert record.prompt == (Message(role="user", content="x"),)
    (record,) = RankingFormat(prompt=None)(Row(objects("rank", 0, 1), "f:1")) or []
    assert record.prompt == ""


def test_not_mine() -> None:
    assert read({"responses": ["a", "b"]}) is None
    assert read(objects("rank", None, None)) is None
    assert read(objects("other", 1, 2)) is None
    assert read({"ranking": None}) is None


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        ({"ranking": [1, 2]}, {}, "'responses' is missing"),
        ({"responses": ["a", "b"], "ranking": [1, 1.5]}, {}, r"ranking\[1\] must be a whole number, not a number \(1\.5\)"),
        ({"responses": ["a", "b"], "ranking": [1, True]}, {}, r"ranking\[1\] must be a whole number, not true"),
        ({"responses": ["a", " "], "ranking": [1, 2]}, {}, r"responses\[1\]\.text is blank"),
        ({"responses": ["a", 3], "ranking": [1, 2]}, {}, r"responses\[1\]\.text must be text"),
        (objects("rank", 1, None), {}, "only 1 of 2 responses has a place"),
        ({"responses": [{"text": "a", "rank": 1}, "b"]}, {}, r"responses\[1\] must be an object"),
        (objects("s", 1, "2"), {"score_field": "s"}, r"responses\[1\]\.s must be a finite number"),
        (objects("s", 1, True), {"score_field": "s"}, r"responses\[1\]\.s must be a finite number, not true"),
        (objects("s", [1, 2], [1]), {"score_field": "s"}, r"as many values .*\[2, 1\]"),
        (objects("s", [1, 2], [1, None]), {"score_field": "s"}, "only 1 of 2 responses has a place"),
        (objects("s", [1, 2], [1, "3"]), {"score_field": "s"}, r"responses\[1\]\.s\[1\] must be a finite number, not text"),
        (objects("s", [1, 2], 1), {"score_field": "s"}, r"responses\[1\]\.s must be a list"),
        (objects("rank", [1, 2], [1, 0.5]), {}, r"responses\[1\]\.rank\[1\] must be a whole number, not a number \(0\.5\)"),
        ({"responses": ["a", "b", "c"], "ranking": [None, None, 1]}, {}, "only 1 of 3"),
        ({"responses": [{"text": "a", "rank": 1}, {"text": "b"}]}, {}, r"'responses\[1\]\.rank' is missing"),
        (
            {"responses": [{"text": "a", "rank": [1, 2], "who": ["x", "y"]}, {"text": "b", "rank": [2, 1], "who": ["y", "x"]}]},
            {"rater_field": "who"},
            r"responses\[1\]\.who is \['y', 'x'\]",
        ),
        (objects("rank", [1, 2], [2, 1]), {"rater_field": "who"}, r"'responses\[0\]\.who' is missing"),
        (objects("rank", [1, 2], [2, 1]) | {"annotator": "anna"}, {}, "annotator must be a list"),
    ],
)
def test_refused(data: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data, **settings)


COLUMNS = {"answer_a": "first", "answer_b": "second", "answer_c": "third"}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("B > A = C", (1, 0, 1)),
        ("b,c,a", (2, 0, 1)),
        ("answer_c > answer_a > answer_b", (1, 2, 0)),
        ("2 1 3", (1, 0, 2)),
        ([3, 1, 2], (1, 2, 0)),
        ([0, 2, 1], (0, 2, 1)),
        (["C", ["A", "B"]], (1, 1, 0)),
    ],
)
def test_an_order_names_columns_best_first(order: Any, expected: tuple[int, ...]) -> None:
    assert ranks(COLUMNS | {"order": order}, responses=tuple(COLUMNS), ranks="order", ranks_are="order") == [expected]


def test_columns_have_places_or_scores_each() -> None:
    settings: dict[str, Any] = {"responses": tuple(COLUMNS), "ranks": ("a", "b", "c")}
    assert ranks(COLUMNS | {"a": 2, "b": 1, "c": 3}, **settings) == [(1, 0, 2)]
    assert ranks(COLUMNS | {"a": 2, "b": 1, "c": 3}, **settings, ranks_are="scores") == [(1, 2, 0)]
    absent = {key: value for key, value in COLUMNS.items() if key != "answer_b"}
    assert ranks(absent | {"a": 2, "c": 1}, **settings) == [(1, 0)]


def test_an_order_of_texts_and_a_choice() -> None:
    data = {"responses": ["x", "y", "z"]}
    assert ranks(data | {"ranking": ["z", "x", "y"]}, ranks_are="order") == [(1, 2, 0)]
    assert ranks(data | {"best": 2}, ranks="best", ranks_are="choice") == [(1, 1, 0)]
    assert ranks({"responses": [{"text": "x"}, {"text": "y"}], "best": 0}, ranks="best", ranks_are="choice") == [(0, 1)]


@pytest.mark.parametrize(
    ("kind", "value"), [("order", "A > D"), ("order", "A > A"), ("order", 3), ("choice", 3), ("choice", "D"), ("choice", True)]
)
def test_an_order_that_names_no_response_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(DataError, match="order"):
        read(COLUMNS | {"order": value}, responses=tuple(COLUMNS), ranks="order", ranks_are=kind)
