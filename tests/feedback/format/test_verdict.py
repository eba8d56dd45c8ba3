"""Two responses side by side, judged by one or by several."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.verdict import VerdictFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, Message, Ranking

PAIR = {"prompt": "p", "response_1": "a", "response_2": "b"}


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return VerdictFormat(**settings)(Row(PAIR | data, "f:1"))


@pytest.mark.parametrize(
    ("verdict", "judgement"),
    [
        (1, Ranking(ranks=(0, 1))),
        (1.0, Ranking(ranks=(0, 1))),
        (2, Ranking(ranks=(1, 0))),
        (0, Ranking(ranks=(0, 0))),
        ("model_a", Ranking(ranks=(0, 1))),
        ("model_b", Ranking(ranks=(1, 0))),
        ("tie", Ranking(ranks=(0, 0))),
        ("tie (bothbad)", Ranking(ranks=(0, 0), all_bad=True)),
    ],
)
def test_what_a_verdict_means(verdict: Any, judgement: Ranking) -> None:
    expected = Feedback(prompt="p", responses=("a", "b"), judgement=judgement, positions=(0, 1), origin="f:1")
    assert read({"verdict": verdict}) == [expected]


def test_votes_are_one_record_each() -> None:
    found = read({"votes": [2, 0], "verdict": 2, "model_a": "x", "model_b": "y", "annotator": ["Ann", "Bob"], "seconds": [1, 2]}) or []
    assert [(r.annotator, r.seconds, r.judgement) for r in found] == [
        ("Ann", 1.0, Ranking(ranks=(1, 0))),
        ("Bob", 2.0, Ranking(ranks=(0, 0))),
    ]
    assert {r.models for r in found} == {("x", "y")}
    assert [r.annotator for r in read({"votes": [1, 1]}) or []] == ["rater0", "rater1"]


def test_names_and_codes_of_a_set() -> None:
    row = Row({"q": "p", "l": "a", "r": "b", "who_won": "left", "judge": "J"}, "f:1")
    form = VerdictFormat(prompt="q", first="l", second="r", verdict="who_won", first_wins=("left",), annotator="judge")
    (record,) = form(row) or []
    assert (record.judgement, record.annotator) == (Ranking(ranks=(0, 1)), "J")


def test_conversations_share_the_prompt() -> None:
    user = {"role": "user", "content": "Hi"}
    row = Row(
        {"a": [user, {"role": "assistant", "content": "x"}], "b": [user, {"role": "assistant", "content": "y"}], "winner": "tie"}, "f:1"
    )
    (record,) = VerdictFormat(first="a", second="b", verdict="winner")(row) or []
    assert (record.prompt, record.responses) == ((Message(role="user", content="Hi"),), ("x", "y"))


def test_paths_into_lists_of_votes() -> None:
    """HelpSteer's preference rows: each person's score from -3, the first much better, to 3."""
    scores = range(-3, 4)
    settings = {"first_wins": (-3, -2, -1), "second_wins": (1, 2, 3), "tie": (0,), "votes": "each.score", "strength": "each.score"}
    found = read({"each": [{"score": score} for score in scores]}, **settings) or []
    for record, score in zip(found, scores, strict=True):
        assert isinstance(record.judgement, Ranking)
        first, second = record.judgement.ranks
        assert first is not None
        assert second is not None
        assert (first > second) - (first < second) == (score > 0) - (score < 0)
        assert record.judgement.margin == (abs(score) or None)


def test_strength() -> None:
    def margins(**data: Any) -> list[float | None]:
        return [record.judgement.margin for record in read(data, strength="by") or [] if isinstance(record.judgement, Ranking)]

    assert margins(verdict=1, by=2) == [2.0]
    assert margins(verdict=2, by=0) == [0.0]
    assert margins(verdict=0, by=0) == [None]
    assert margins(verdict="both_bad", by=None) == [None]
    assert margins(verdict=1) == [None]
    assert margins(votes=[1, 2], by=[1, None]) == [1.0, None]


def test_not_mine() -> None:
    assert read({}) is None
    assert read({"verdict": None, "votes": None}) is None
    assert read({"votes": [1]}, votes=None) is None
    assert read({"verdict": 1}, verdict=None) is None


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        ({"verdict": "1"}, {}, r"verdict must be one of: a number \(1\), text \('model_a'\)"),
        ({"verdict": True}, {}, "not true"),
        ({"votes": [1, 3]}, {}, r"votes\[1\] must be one of"),
        ({"votes": []}, {}, "votes is an empty list"),
        ({"votes": 1}, {}, "votes must be a list"),
        ({"votes": [1, 1], "annotator": "x"}, {}, "annotator must be a list"),
        ({"verdict": 1, "by": -1}, {"strength": "by"}, "by is -1"),
        ({"verdict": 0, "by": 1}, {"strength": "by"}, "a tie has none"),
        ({"votes": [1, 1], "by": 2}, {"strength": "by"}, "by must be a list"),
        ({"votes": [1, 1], "by": [2]}, {"strength": "by"}, "by has 1 items for 2 votes"),
        ({"verdict": 1, "by": "2"}, {"strength": "by"}, "by must be a finite number"),
        ({"verdict": 1, "response_2": " "}, {}, "response_2 is blank"),
    ],
)
def test_refused(data: dict[str, Any], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data, **settings)


def test_settings_refused() -> None:
    with pytest.raises(ConfigError, match="both null"):
        VerdictFormat(verdict=None, votes=None)
    for one, other in product([(1,), ("model_a",)], ["tie", "both_bad"]):
        with pytest.raises(ConfigError, match="one meaning"):
            VerdictFormat(**{"first_wins": one, other: one})
