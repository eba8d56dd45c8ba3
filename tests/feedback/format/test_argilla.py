"""Argilla's records: each question's responses as the judgement that the settings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.argilla import ArgillaFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.feedback.source.json import json as json_array
from rlhf_lightning.flow import Comment, Edit, Feedback, Judgement, Message, Ranking, Rating, SpanLabel, Spans, Thumbs

FIELDS = {"prompt": "p", "response": "good text", "response-2": "other"}


def read(question: str, value: Any, meaning: str | None = None, fields: dict[str, Any] = FIELDS, **settings: Any) -> list[Feedback]:
    record = {
        "id": "1",
        "fields": fields,
        "metadata": {},
        "suggestions": {question: {"value": 1, "score": None, "agent": "m"}},
        "responses": {question: [{"value": value, "user_id": "u"}]},
        "vectors": {},
        "_server_id": "s",
    }
    questions = {} if meaning is None else {question: meaning}
    return ArgillaFormat(questions=questions, **settings)(Row(record, "f:1")) or []


@pytest.mark.parametrize(
    ("meaning", "value", "judgement"),
    [
        ("rating", 4, Rating(value=4, scale=(1, 5))),
        ("aspect", 4, Rating(value=4, scale=(1, 5), aspect="q")),
        ("thumbs", "yes", Thumbs(up=True)),
        ("thumbs", "no", Thumbs(up=False)),
        ("comment", "too short", Comment(text="too short")),
        ("spans", [{"start": 0, "end": 4, "label": "praise"}], Spans(spans=(SpanLabel(start=0, end=4, value=1, label="praise"),))),
        ("spans", [], Spans(spans=())),
    ],
)
def test_judgements_of_one_text(meaning: str, value: Any, judgement: Judgement) -> None:
    found = read("q", value, meaning, scale=(1, 5), spans={"praise": 1})
    assert found == [Feedback(prompt="p", responses=("good text",), judgement=judgement, annotator="u", origin="f:1")]


def test_an_edit() -> None:
    (record,) = read("q", "better text", "edit")
    assert (record.responses, record.judgement) == (("good text", "better text"), Edit())


@pytest.mark.parametrize(
    ("value", "texts", "ranks"),
    [
        (["response-2", "response"], ("other", "good text"), (0, 1)),
        ([{"value": "response", "rank": 2}, {"value": "response-2", "rank": 2}], ("good text", "other"), (0, 0)),
    ],
)
def test_rankings_best_first_or_with_ranks(value: Any, texts: tuple[str, ...], ranks: tuple[int, ...]) -> None:
    (record,) = read("q", value, "ranking")
    assert (record.responses, record.judgement) == (texts, Ranking(ranks=ranks))


def test_names_in_a_ranking_and_questions_about_another_text() -> None:
    (record,) = read("q", ["B", "A"], "ranking", ranked={"A": "response", "B": "response-2"})
    assert record.responses == ("other", "good text")
    (record,) = read("q", 1, "rating", texts={"q": "response-2"}, scale=(1, 5))
    assert record.responses == ("other",)


def test_a_chat_field() -> None:
    (record,) = read("q", "yes", "thumbs", fields={"prompt": [{"role": "user", "content": "x"}], "response": "r"})
    assert record.prompt == (Message(role="user", content="x"),)


def test_drafts_and_discarded_are_left_out_where_the_status_is_there() -> None:
    responses = [
        {"value": "yes", "user_id": str(i), "status": status} for i, status in enumerate(["draft", "submitted", "discarded", None])
    ]
    row = Row({"fields": FIELDS, "responses": {"q": responses}}, "f:1")
    assert [r.annotator for r in ArgillaFormat(questions={"q": "thumbs"})(row) or []] == ["1", "3"]


def test_another_status() -> None:
    row = Row({"fields": FIELDS, "responses": {"q": [{"value": "yes", "user_id": "u", "status": "sent"}]}}, "f:1")
    with pytest.raises(DataError, match=r"status must be submitted, draft or discarded, not text .'sent'"):
        ArgillaFormat(questions={"q": "thumbs"})(row)


def test_what_gives_nothing_and_what_is_not_mine() -> None:
    assert read("q", 3, "ignore") == []
    assert ArgillaFormat()(Row({"fields": FIELDS, "responses": {}}, "f:1")) == []
    assert ArgillaFormat()(Row({"fields": FIELDS, "responses": {"q": None, "r": []}}, "f:1")) == []
    assert ArgillaFormat()(Row({"fields": FIELDS}, "f:1")) is None
    assert ArgillaFormat()(Row({"prompt": "p", "responses": ["a", "b"]}, "f:1")) is None


@pytest.mark.parametrize(
    ("meaning", "value", "words"),
    [
        (None, 4, r"responses\.q: the kind of its responses is unknown.*questions=\{q: rating\}"),
        ("rating", 9, r"responses\.q\[0\]\.value is 9, off the scale"),
        ("rating", "4", "must be a finite number"),
        ("rating", None, "value is null"),
        ("thumbs", "maybe", "must be one of.*'yes'.*'no'"),
        ("thumbs", ["yes"], "must be one of"),
        ("comment", "  ", "blank"),
        ("spans", [{"start": 0, "end": 4, "label": "x"}], "label text .*'x'.* has no value"),
        (
            "spans",
            [{"start": 0, "end": 40, "label": "praise"}],
            r"value\[0\]\.start 0 to end 40 is not a span of the response",
        ),
        ("spans", "praise", "value must be a list"),
        ("ranking", ["response"], "at least two"),
        ("ranking", ["response", "response"], "is in the ranking twice"),
        ("ranking", ["response", "third"], r"'fields\.third' is missing"),
        ("ranking", [{"value": "response", "rank": "1"}, {"value": "response-2", "rank": 2}], "rank must be a whole number"),
    ],
)
def test_refused(meaning: str | None, value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read("q", value, meaning, scale=(1, 5), spans={"praise": 1})


def test_ratings_need_a_scale() -> None:
    with pytest.raises(ConfigError, match=r"argilla\.scale"):
        ArgillaFormat(questions={"q": "rating"})


def test_an_export_is_one_json_array(tmp_path: Path) -> None:
    file = tmp_path / "records.json"
    records = [{"id": who, "fields": FIELDS, "responses": {"q": [{"value": "yes", "user_id": who}]}} for who in ("u", "v")]
    file.write_text(json.dumps(records), encoding="utf-8")
    reading = read_feedback(json_array(path=str(file)), [ArgillaFormat(questions={"q": "thumbs"})])
    assert [(r.annotator, r.judgement) for r in reading.feedback] == [(who, Thumbs(up=True)) for who in ("u", "v")]
