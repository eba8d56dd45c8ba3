"""A valid row with one value anywhere in it replaced or taken out is read, left, or refused in words."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.argilla import ArgillaFormat
from rlhf_lightning.feedback.format.attributes import AttributesFormat
from rlhf_lightning.feedback.format.edit import EditFormat
from rlhf_lightning.feedback.format.label_studio import LabelStudioFormat
from rlhf_lightning.feedback.format.oasst import OasstFormat
from rlhf_lightning.feedback.format.ranking import RankingFormat
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.reading import Format, read_feedback
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback


def result(kind: str, value: dict[str, Any], control: str = "c") -> dict[str, Any]:
    return {"from_name": control, "type": kind, "value": value}


MESSAGES = [{"role": "user", "content": "q"}]
REVIEWS = [{"who": "x", "rank": 1}, {"who": "y", "rank": 2}]
RESULTS = [
    result("rating", {"rating": 4}),
    result("choices", {"choices": ["Good"]}),
    result("pairwise", {"selected": "left"}),
    result("ranker", {"ranker": {"good": ["x"], "bad": ["y"]}}),
    result("textarea", {"text": ["w"], "start": 0, "end": 1}, "why"),
    result("labels", {"labels": ["Good"], "text": "r", "start": 0, "end": 1}),
]
REPLIES = [
    {"text": "a", "role": "assistant", "lang": "en", "rank": 0, "deleted": False},
    {"text": "b", "role": "assistant", "lang": "en", "rank": 1, "replies": []},
]
CASES: list[tuple[Format, dict[str, Any]]] = [
    (RankingFormat(), {"prompt": MESSAGES, "responses": ["a", "b", "c"], "ranking": [1, None, 2], "annotator": "x"}),
    (
        RankingFormat(rank_field="reviews.rank", rater_field="reviews.who", model_field="by"),
        {"prompt": "p", "responses": [{"text": "a", "by": "m", "reviews": REVIEWS}, {"text": "b", "by": "n", "reviews": REVIEWS}]},
    ),
    (RankingFormat(score_field="s"), {"prompt": "p", "responses": [{"text": "a", "s": [1, 2]}, {"text": "b", "s": [0.5, 3]}]}),
    (
        RatingFormat(turn="turn"),
        {"prompt": "p", "response": "r", "ratings": [1, 2], "scale": [1, 5], "annotator": ["a", "b"], "turn": 3, "seconds": [1, 2]},
    ),
    (EditFormat(), {"prompt": "p", "response": "r", "edit": "s", "model": "m", "time": "2025-01-31T12:00:00Z"}),
    (
        AttributesFormat(value_field="Rating", text_numbers=True, scale=(1, 5)),
        {"prompt": "p", "response": "r", "ratings": {"a": {"Rating": "4"}, "b": {"Rating": "N/A"}}},
    ),
    (AttributesFormat(scale=(1, 5)), {"prompt": "p", "response": "r", "ratings": {"a": [1, 2], "b": 3}}),
    (OasstFormat(languages=("en",)), {"tree": {"prompt": {"text": "q", "role": "prompter", "lang": "en", "replies": REPLIES}}}),
    (
        LabelStudioFormat(
            scale=(1, 5), up=("Good",), spans={"Good": 1}, buckets=("good", "bad"), controls={"why": "comment"}, pair=("a", "b")
        ),
        {
            "data": {"prompt": "p", "response": "r", "a": "1", "b": "2", "items": [{"id": "x", "body": "X"}, {"id": "y", "body": "Y"}]},
            "annotations": [{"completed_by": {"id": 1, "email": "e"}, "lead_time": 1.5, "was_cancelled": False, "result": RESULTS}],
        },
    ),
    (
        ArgillaFormat(questions={"r": "rating", "o": "ranking", "s": "spans", "t": "thumbs", "e": "edit"}, scale=(1, 5), spans={"x": 1}),
        {
            "fields": {"prompt": "p", "response": "r", "b": "2"},
            "responses": {
                "r": [{"value": 4, "user_id": "u", "status": "submitted"}],
                "o": [{"value": [{"value": "b", "rank": 1}, {"value": "response", "rank": 1}], "user_id": "u"}],
                "s": [{"value": [{"start": 0, "end": 1, "label": "x"}], "user_id": "u"}],
                "t": [{"value": "yes", "user_id": "u"}],
                "e": [{"value": "better", "user_id": "u"}],
            },
        },
    ),
]
others = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        7,
        0.5,
        1e308,
        10**400,
        "",
        " ",
        "x",
        "4",
        "user",
        "assistant",
        [],
        {},
        [1],
        [None],
        [[]],
        ["x"],
        {"x": 1},
    ]
)


def dense_ranks(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from dense_ranks(item, (*path, key))


@pytest.mark.parametrize(("form", "row"), CASES, ids=[f"{type(form).__name__}{i}" for i, (form, _) in enumerate(CASES)])
def test_the_row_itself_is_read(form: Format, row: dict[str, Any]) -> None:
    assert form(Row(row, "f:1"))


@pytest.mark.parametrize(("form", "row"), CASES, ids=[f"{type(form).__name__}{i}" for i, (form, _) in enumerate(CASES)])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_value_changed(form: Format, row: dict[str, Any], data: st.DataObject) -> None:
    changed = copy.deepcopy(row)
    *path, last = data.draw(st.sampled_from(sorted(dense_ranks(row), key=str)), label="place")
    inner = changed
    for key in path:
        inner = inner[key]
    if data.draw(st.booleans(), label="take out"):
        del inner[last]
    else:
        inner[last] = data.draw(others, label="value")
    found, told = list[Feedback](), "f:1: "
    try:
        found = read_feedback([Row(changed, "f:1")], [form]).feedback
    except DataError as error:
        told = str(error)
    assert "f:1: " in told
    assert all(Feedback.model_validate_json(json.dumps(json.loads(record.model_dump_json()))) == record for record in found)
