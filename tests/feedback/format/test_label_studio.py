"""Label Studio's tasks: each control's answer as a judgement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.label_studio import LabelStudioFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.feedback.source.json import json as json_array
from rlhf_lightning.flow import Comment, Edit, Feedback, Judgement, Ranking, Rating, SpanLabel, Spans, Thumbs

DATA = {
    "prompt": "p",
    "response": "one 👍 two",
    "answer1": "left text",
    "answer2": "right text",
    "items": [{"id": "x", "body": "X"}, {"id": "y", "body": "Y"}, {"id": 3, "body": "Z"}],
}


def result(kind: str, value: Any, control: str = "c") -> dict[str, Any]:
    return {"id": "r", "from_name": control, "to_name": "t", "type": kind, "origin": "manual", "value": value}


def task(*results: dict[str, Any], **annotation: Any) -> Row:
    given = {"id": 1, "completed_by": 3, "was_cancelled": False, "result": list(results)} | annotation
    return Row({"id": 7, "data": DATA, "annotations": [given], "predictions": [], "project": 1}, "f:1")


def read(kind: str, value: Any, **settings: Any) -> list[Feedback]:
    return LabelStudioFormat(**settings)(task(result(kind, value))) or []


@pytest.mark.parametrize(
    ("kind", "value", "settings", "texts", "judgement"),
    [
        ("rating", {"rating": 4}, {"scale": (1, 5)}, ["one 👍 two"], Rating(value=4, scale=(1, 5))),
        (
            "number",
            {"number": 7},
            {"scale": (0, 10), "controls": {"c": "aspect"}},
            ["one 👍 two"],
            Rating(value=7, scale=(0, 10), aspect="c"),
        ),
        ("rating", {"rating": 2}, {"scale": (1, 5), "texts": {"c": "answer2"}}, ["right text"], Rating(value=2, scale=(1, 5))),
        ("choices", {"choices": ["Good"]}, {"up": ("Good",), "down": ("Bad",)}, ["one 👍 two"], Thumbs(up=True)),
        ("choices", {"choices": ["Bad"]}, {"up": ("Good",), "down": ("Bad",)}, ["one 👍 two"], Thumbs(up=False)),
        ("pairwise", {"selected": "left"}, {}, ["left text", "right text"], Ranking(ranks=(0, 1))),
        ("pairwise", {"selected": "right"}, {}, ["left text", "right text"], Ranking(ranks=(1, 0))),
        ("textarea", {"text": ["better"]}, {"controls": {"c": "edit"}}, ["one 👍 two", "better"], Edit()),
        ("textarea", {"text": ["dull"]}, {"controls": {"c": "comment"}}, ["one 👍 two"], Comment(text="dull")),
        ("ranker", {"ranker": {"c": ["y", "3", "x"]}}, {}, ["X", "Y", "Z"], Ranking(ranks=(2, 0, 1))),
        (
            "ranker",
            {"ranker": {"_": ["3"], "bad": ["x"], "good": ["y"]}},
            {"buckets": ("good", "bad")},
            ["X", "Y", "Z"],
            Ranking(ranks=(1, 0, None)),
        ),
        ("ranker", {"ranker": {"good": ["y", "x"], "bad": ["3"]}}, {"buckets": ("good", "bad")}, ["X", "Y", "Z"], Ranking(ranks=(0, 0, 1))),
    ],
)
def test_judgements(kind: str, value: Any, settings: dict[str, Any], texts: list[str], judgement: Judgement) -> None:
    (record,) = read(kind, value, **settings)
    assert (record.prompt, record.responses, record.judgement, record.annotator) == ("p", tuple(texts), judgement, "3")
    assert record.positions == ((0, 1) if kind == "pairwise" else None)


def test_what_stands_beside() -> None:
    row = task(
        result("pairwise", {"selected": "left"}),
        completed_by={"id": 3, "email": "anna@example.org", "first_name": ""},
        lead_time=12.3,
        created_at="2021-03-09T22:16:08.728353Z",
    )
    (record,) = LabelStudioFormat()(row) or []
    assert (record.annotator, record.seconds, record.origin) == ("anna@example.org", 12.3, "f:1")
    assert record.time is not None
    assert record.time.isoformat() == "2021-03-09T22:16:08.728353+00:00"


def test_labels_of_an_annotation_are_one_record() -> None:
    # A browser counts the thumb as two, so that "two" stands at 7 for it, and at 6 here.
    row = task(
        result("labels", {"start": 0, "end": 3, "text": "one", "labels": ["Good"]}),
        result("labels", {"start": 7, "end": 10, "text": "two", "labels": ["Bad", "Good"]}),
    )
    (record,) = LabelStudioFormat(spans={"Good": 1, "Bad": -0.5})(row) or []
    assert record.judgement == Spans(
        spans=(
            SpanLabel(start=0, end=3, value=1, label="Good"),
            SpanLabel(start=6, end=9, value=-0.5, label="Bad"),
            SpanLabel(start=6, end=9, value=1, label="Good"),
        )
    )


def test_a_comment_on_a_region_keeps_its_place() -> None:
    (record,) = read("textarea", {"start": 0, "end": 3, "text": ["too few"]}, controls={"c": "comment"})
    assert record.judgement == Comment(text="too few", start=0, end=3)


def test_several_people_and_several_controls() -> None:
    data = {
        "data": DATA,
        "annotations": [
            {"completed_by": who, "result": [result("rating", {"rating": who}, "whole"), result("rating", {"rating": 1}, "clarity")]}
            for who in (2, 4)
        ],
    }
    found = LabelStudioFormat(scale=(1, 5), controls={"clarity": "aspect"})(Row(data, "f:1")) or []
    said = [(r.annotator, r.judgement.aspect, r.judgement.value) for r in found if isinstance(r.judgement, Rating)]
    assert said == [("2", None, 2), ("2", "clarity", 1), ("4", None, 4), ("4", "clarity", 1)]


def test_what_gives_nothing_and_what_is_not_mine() -> None:
    form = LabelStudioFormat(controls={"c": "ignore"})
    assert form(task(result("taxonomy", {"taxonomy": [["a"]]}))) == []
    assert form(task({"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"})) == []
    assert form(task(result("rating", {"rating": 4}, "other"), was_cancelled=True)) == []
    assert form(task()) == []
    assert form(Row({"data": DATA, "annotations": []}, "f:1")) == []
    assert read("ranker", {"ranker": {"_": ["x", "y", "3"], "good": []}}, buckets=("good",)) == []
    assert form(Row({"data": DATA}, "f:1")) is None


@pytest.mark.parametrize(
    ("kind", "value", "settings", "words"),
    [
        ("rating", {"rating": 4}, {}, r"label_studio\.scale"),
        ("rating", {"rating": 6}, {"scale": (1, 5)}, r"annotations\[0\]\.result\[0\]\.value\.rating is 6, off the scale"),
        ("rating", {"rating": "4"}, {"scale": (1, 5)}, "must be a finite number"),
        ("choices", {"choices": ["Good"]}, {}, r"label_studio\.up"),
        ("choices", {"choices": ["Good", "Bad"]}, {"up": ("Good",)}, "2 choices; thumbs are one"),
        ("choices", {"choices": ["Good"], "start": 0, "end": 2}, {"up": ("Good",)}, "judges a span"),
        ("pairwise", {"selected": "none"}, {}, "selected must be left or right"),
        ("textarea", {"text": ["x"]}, {}, "the meaning of the TextArea 'c' is unknown"),
        ("textarea", {"text": ["x"], "start": 0, "end": 2}, {"controls": {"c": "edit"}}, "controls=.c: comment"),
        ("textarea", {"text": ["x", "y"]}, {"controls": {"c": "edit"}}, "2 texts"),
        ("textarea", {"text": [" "]}, {"controls": {"c": "edit"}}, r"text\[0\] is blank"),
        ("taxonomy", {"taxonomy": []}, {}, "type is 'taxonomy', which is not read"),
        ("labels", {"start": 0, "end": 3, "text": "one", "labels": ["New"]}, {}, "has no value"),
        ("labels", {"start": 0, "end": 3, "text": "two", "labels": ["A"]}, {"spans": {"A": 1}}, "differs from the response"),
        ("labels", {"start": 0.5, "end": 3, "labels": ["A"]}, {"spans": {"A": 1}}, "start must be a whole number"),
        ("labels", {"start": 0, "end": 3, "labels": []}, {"spans": {"A": 1}}, "labels is an empty list"),
        ("ranker", {"ranker": {"a": ["x"], "b": ["y"]}}, {}, "has buckets .a, b.: say their order"),
        ("ranker", {"ranker": {"a": ["x"]}}, {"buckets": ("good",)}, "has none of the buckets"),
        ("ranker", {"ranker": {"c": ["x", "q"]}}, {}, "'q' is no id in items"),
        ("ranker", {"ranker": {"c": ["x", "x"]}}, {}, "has a place already"),
        ("ranker", {"ranker": {"c": ["x"]}}, {}, "only 1 of 3"),
    ],
)
def test_refused(kind: str, value: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(kind, value, **settings)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"lead_time": -1}, "lead_time is -1"),
        ({"created_at": "yesterday"}, "created_at must be a time"),
        ({"was_cancelled": "no"}, "was_cancelled must be true or false"),
        ({"result": {}}, "result must be a list"),
        ({"completed_by": []}, "completed_by must be text"),
    ],
)
def test_a_broken_annotation(annotation: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        LabelStudioFormat()(task(result("pairwise", {"selected": "left"}), **annotation))


def test_a_choice_that_is_up_and_down() -> None:
    with pytest.raises(ConfigError, match="one meaning"):
        LabelStudioFormat(up=("a",), down=("a",))


def test_an_export_is_one_json_array(tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    tasks = [task(result("rating", {"rating": stars}), completed_by=stars).data for stars in (1, 5)]
    file.write_text(json.dumps(tasks), encoding="utf-8")
    reading = read_feedback(json_array(path=str(file)), [LabelStudioFormat(scale=(1, 5))])
    assert [(r.annotator, r.judgement) for r in reading.feedback] == [(str(n), Rating(value=n, scale=(1, 5))) for n in (1, 5)]
