"""Whatever JSON stands in a row, a format reads it, leaves it, or refuses it in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.comment import CommentFormat
from rlhf_lightning.feedback.format.dialogue import DialogueFormat
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.format.spans import SpansFormat
from rlhf_lightning.feedback.format.stepwise import StepwiseFormat
from rlhf_lightning.feedback.format.thumbs import ThumbsFormat
from rlhf_lightning.feedback.format.verdict import VerdictFormat
from rlhf_lightning.feedback.reading import Format
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback

FORMATS: list[Format] = [
    CommentFormat(unclear="first", empty="skip"),
    DialogueFormat(scale=(0, 5), thumbs="ok"),
    PairwiseFormat(),
    RecordFormat(),
    SpansFormat(rater="by", unclear="drop"),
    SpansFormat(values={"x": -1}),
    StepwiseFormat(neutral=(0,)),
    ThumbsFormat(),
    VerdictFormat(strength="verdict"),
]
INNER = ["role", "content", "rating", "ok", "text", "span", "start", "end", "value", "label", "by", "kind", "up"]
scalars = st.sampled_from(
    [None, True, False, 0, 1, -1, 2, 0.5, 1e308, 10**400, "", " ", "x", "xx", "user", "assistant", "2024-01-01T00:00Z"]
)
objects = st.dictionaries(st.sampled_from(INNER), scalars, max_size=5)
messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": scalars}, optional={"rating": scalars})
values = scalars | st.lists(scalars | objects | messages | st.lists(scalars, max_size=2), max_size=3) | objects


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: type(form).__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_read_left_or_refused(form: Format, data: st.DataObject) -> None:
    names = sorted(getattr(form, "fields", ()))
    row = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, values)), label="row")
    try:
        found: Any = form(Row(row, "f:1"))
    except (DataError, ValidationError):
        return
    assert found is None or all(isinstance(record, Feedback) for record in found)
