"""The project's own records, held to their rules; that they come back as they went is tests/feedback/test_round_trip.py."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Message


def data(**changes: Any) -> dict[str, Any]:
    return {"prompt": "p", "responses": ["a", "b"], "judgement": {"kind": "ranking", "ranks": [0, 1]}} | changes


def test_a_record_without_an_origin_gets_its_line() -> None:
    (record,) = RecordFormat()(Row(data(), "f:3")) or []
    assert record.origin == "f:3"
    (record,) = RecordFormat()(Row(data(origin="old:1"), "f:3")) or []
    assert record.origin == "old:1"
    assert RecordFormat()(Row({"prompt": "p"}, "f:1")) is None


def test_prompts_of_every_shape() -> None:
    talk = [{"role": "user", "content": "x"}]
    for prompt, expected in (("", ""), ("p", "p"), (talk, (Message(role="user", content="x"),))):
        (record,) = RecordFormat()(Row(data(prompt=prompt), "f:1")) or []
        assert record.prompt == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": " "},
        {"prompt": []},
        {"prompt": [{"role": "user", "content": " "}]},
        {"prompt": [{"role": "human", "content": "x"}]},
        {"prompt": [{"role": "user", "content": "x", "name": "y"}]},
        {"models": ["x"]},
        {"positions": [0]},
        {"seconds": -1},
        {"time": 1700000000},
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
