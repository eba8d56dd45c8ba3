"""Edits, and edits that change nothing."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.edit import EditFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Edit, Feedback


def test_original_first() -> None:
    row = Row({"prompt": "p", "response": "a", "edited": "b", "annotator": "anna"}, "f:1")
    expected = Feedback(prompt="p", responses=("a", "b"), judgement=Edit(), annotator="anna", origin="f:1")
    assert EditFormat(edited="edited")(row) == [expected]
    assert EditFormat()(row) is None


def test_an_approval_stays() -> None:
    (record,) = EditFormat()(Row({"prompt": "p", "response": "a", "edit": "a"}, "f:1")) or []
    assert record.responses == ("a", "a")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("edit", " \n", "edit is blank"), ("response", None, "response is null"), ("prompt", 3, "prompt must be text")],
)
def test_refused(field: str, value: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        EditFormat()(Row({"prompt": "p", "response": "a", "edit": "b"} | {field: value}, "f:1"))
