"""The project's own records come back as they went."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.feedback.source.jsonl import jsonl
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
texts = st.text(letters, min_size=1, max_size=12).filter(str.strip)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def records(draw: st.DrawFn) -> Feedback:
    rest: dict[str, Any] = {
        "prompt": draw(texts),
        "annotator": draw(st.none() | st.text(letters, max_size=5)),
        "origin": draw(st.none() | st.text(letters, max_size=5)),
        "weight": draw(st.floats(0, 1e300)),
    }
    kind = draw(st.sampled_from(["rating", "ranking", "edit"]))
    if kind == "rating":
        low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers).filter(lambda ends: min(ends) < max(ends))))
        return Feedback(responses=(draw(texts),), judgement=Rating(value=value, scale=(low, high)), **rest)
    responses = tuple(draw(st.lists(texts, min_size=2, max_size=2 if kind == "edit" else 4)))
    if kind == "edit":
        return Feedback(responses=responses, judgement=Edit(), **rest)
    ranks = tuple(draw(st.integers(-(10**20), 10**20)) for _ in responses)
    return Feedback(responses=responses, judgement=Ranking(ranks=ranks, margin=draw(st.none() | numbers)), **rest)


@settings(max_examples=150, deadline=None)
@given(st.lists(records(), min_size=1, max_size=5), st.booleans())
def test_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory, given_records: list[Feedback], escaped: bool) -> None:
    lines = [record.model_dump_json() for record in given_records]
    file = tmp_path_factory.getbasetemp() / "records.jsonl"
    file.write_text("\n".join(json.dumps(json.loads(line)) if escaped else line for line in lines), encoding="utf-8", newline="")
    back = read_feedback(jsonl(path=str(file)), [RecordFormat()]).feedback
    assert back == given_records
    assert [record.model_dump_json() for record in back] == lines


def data(**changes: Any) -> dict[str, Any]:
    return {"prompt": "p", "responses": ["a", "b"], "judgement": {"kind": "ranking", "ranks": [0, 1]}} | changes


def test_a_record_without_an_origin_gets_its_line() -> None:
    (record,) = RecordFormat()(Row(data(), "f:3")) or []
    assert record.origin == "f:3"
    (record,) = RecordFormat()(Row(data(origin="old:1"), "f:3")) or []
    assert record.origin == "old:1"
    assert RecordFormat()(Row({"prompt": "p"}, "f:1")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": " "},
        {"responses": ["a", ""]},
        {"responses": ["a"]},
        {"weight": "1"},
        {"weight": -1},
        {"extra": 1},
        {"judgement": {"kind": "thumbs"}},
        {"judgement": {"kind": "rating", "value": 3, "scale": [0, 1]}},
        {"judgement": {"kind": "ranking", "ranks": [0, True]}},
        {"judgement": {"kind": "ranking", "ranks": [0, 1], "margin": float("inf")}},
    ],
)
def test_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((DataError, ValidationError)):
        RecordFormat()(Row(data(**changes), "f:1"))
    with pytest.raises(DataError, match="f:1: "):
        read_feedback([Row(data(**changes), "f:1")], [RecordFormat()])
