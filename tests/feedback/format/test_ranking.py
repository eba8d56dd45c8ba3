"""Rankings: places beside texts, or places and scores inside objects."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.ranking import RankingFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Ranking


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return RankingFormat(**settings)(Row({"prompt": "p"} | data, "f:1"))


def ranks(data: dict[str, Any], **settings: Any) -> list[tuple[int, ...]]:
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


def test_not_mine() -> None:
    assert read({"responses": ["a", "b"]}) is None
    assert read({"ranking": None}) is None


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        ({"ranking": [1, 2]}, {}, "'responses' is missing"),
        ({"responses": ["a", "b"], "ranking": [1, 1.5]}, {}, r"ranking\[1\] must be a whole number, not a number \(1\.5\)"),
        ({"responses": ["a", "b"], "ranking": [1, True]}, {}, r"ranking\[1\] must be a whole number, not true"),
        ({"responses": ["a", " "], "ranking": [1, 2]}, {}, r"responses\[1\]\.text is blank"),
        ({"responses": ["a", 3], "ranking": [1, 2]}, {}, r"responses\[1\]\.text must be text"),
        (objects("rank", 1, None), {}, r"responses\[1\]\.rank must be a whole number, not null"),
        ({"responses": [{"text": "a", "rank": 1}, "b"]}, {}, r"responses\[1\] must be an object"),
        (objects("s", 1, "2"), {"score_field": "s"}, r"responses\[1\]\.s must be a finite number"),
        (objects("s", 1, True), {"score_field": "s"}, r"responses\[1\]\.s must be a finite number, not true"),
        (objects("s", [1, 2], [1]), {"score_field": "s"}, r"as many scores .*\[2, 1\]"),
        (objects("s", [1, 2], [1, None]), {"score_field": "s"}, r"responses\[1\]\.s\[1\] must be a finite number, not null"),
    ],
)
def test_refused(data: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data, **settings)
