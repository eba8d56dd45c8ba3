"""Edits, and edits that change nothing."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.edit import EditFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Edit, Feedback, Message


def test_original_first() -> None:
    row = Row({"prompt": "p", "response": "a", "edited": "b", "annotator": "anna"}, "f:1")
    expected = Feedback(prompt="p", responses=("a", "b"), judgement=Edit(), annotator="anna", origin="f:1")
    assert EditFormat(edited="edited")(row) == [expected]
    assert EditFormat()(row) is None


def test_an_approval_stays() -> None:
    (record,) = EditFormat()(Row({"prompt": "p", "response": "a", "edit": "a"}, "f:1")) or []
    assert record.responses == ("a", "a")


def test_what_stands_beside() -> None:
    data = {"response": "a", "edit": "b", "model": "m", "seconds": 20, "time": "2025-01-31T12:00:00Z"}
    (record,) = EditFormat(prompt=None)(Row(data, "f:1")) or []
    assert (record.prompt, record.models, record.seconds) == ("", ("m", None), 20)
    assert record.time is not None
    assert record.time.isoformat() == "2025-01-31T12:00:00+00:00"


def test_an_edited_turn_of_a_chat() -> None:
    data = {
        "prompt": [{"role": "user", "content": "x"}],
        "response": [{"role": "assistant", "content": "a"}],
        "edit": [{"role": "assistant", "content": "b"}],
    }
    (record,) = EditFormat()(Row(data, "f:1")) or []
    assert (record.prompt, record.responses) == ((Message(role="user", content="x"),), ("a", "b"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("edit", " \n", "edit is blank"), ("response", None, "response is null"), ("prompt", 3, "prompt must be text")],
)
def test_refused(field: str, value: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        EditFormat()(Row({"prompt": "p", "response": "a", "edit": "b"} | {field: value}, "f:1"))
