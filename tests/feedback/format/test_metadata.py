"""Who judged, when, how long it took, and which models wrote the responses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format._metadata import JudgementMetadata, parse_time
from rlhf_lightning.feedback.row import Row


def row(**data: Any) -> Row:
    return Row(data, "f:1")


def test_all_of_it() -> None:
    about = JudgementMetadata("who", ["a", "b"])
    found = about(row(who=7, time="2024-02-03T04:05:06Z", seconds=3, a="gpt2", b=None))
    when = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert found == {"annotator": "7", "time": when, "seconds": 3.0, "weight": 1.0, "models": ("gpt2", None), "origin": "f:1"} | {
        "selected_by": None
    }
    assert about.fields == {"who", "a", "b", "time", "seconds", "weight", "selected_by"}


def test_no_notes_are_none() -> None:
    expected = {"annotator": None, "time": None, "seconds": None, "weight": 1.0, "models": None, "origin": "f:1"} | {"selected_by": None}
    assert JudgementMetadata("annotator", ["model"])(row(annotator=None, model=None)) == expected
    assert JudgementMetadata(None, "models")(row()) == expected
    assert JudgementMetadata(None)(row(annotator="a"))["annotator"] is None


def test_one_field_with_a_list_of_models() -> None:
    assert JudgementMetadata(None, "systems")(row(systems=["x", None]))["models"] == ("x", None)
    assert JudgementMetadata(None, "systems").fields == {"systems", "time", "seconds", "weight", "selected_by"}
    with pytest.raises(DataError, match="systems must be a list, not text"):
        JudgementMetadata(None, "systems")(row(systems="x_y"))
    with pytest.raises(DataError, match=r"systems\[1\] must be text"):
        JudgementMetadata(None, "systems")(row(systems=["x", True]))


def test_each_of_several() -> None:
    found = JudgementMetadata("who", ["model"]).per_annotator(
        row(who=["a", 2], seconds=[1, 2.5], time="2024-01-01 00:00", model="m"), 2, "votes"
    )
    assert [(one["annotator"], one["seconds"]) for one in found] == [("a", 1.0), ("2", 2.5)]
    assert {one["time"] for one in found} == {datetime(2024, 1, 1)}
    assert all(one["models"] == ("m",) and one["origin"] == "f:1" for one in found)
    assert [one["annotator"] for one in JudgementMetadata("who").per_annotator(row(), 3, "votes")] == ["rater0", "rater1", "rater2"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"who": ["a"]}, "who has 1 items for 2 votes"),
        ({"who": "a"}, "who must be a list, not text"),
        ({"who": ["a", ""]}, r"who\[1\] is empty"),
        ({"seconds": [1, 2, 3]}, "seconds has 3 items for 2 votes"),
        ({"seconds": [1, -2]}, r"seconds\[1\] is -2"),
        ({"time": ["2024-01-01T00:00", 5]}, r"time\[1\] must be a time"),
    ],
)
def test_each_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        JudgementMetadata("who").per_annotator(row(**data), 2, "votes")


@pytest.mark.parametrize("value", [1700000000, 1.5, True, "yesterday", "2024-01-31", "12:30", "", "2024-13-01T00:00:00Z", ["x"], {}])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(DataError, match=r"time must be a time as in 2025-01-31T12:00:00Z, not .*rename"):
        JudgementMetadata(None)(row(time=value))


@pytest.mark.parametrize("value", ["3", True, float("inf"), -1, [1]])
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(DataError, match="seconds "):
        JudgementMetadata(None)(row(seconds=value))


@given(st.datetimes(timezones=st.none() | st.just(UTC)))
def test_iso_times_come_back(when: datetime) -> None:
    assert parse_time(when.isoformat(), "t") == when
    assert parse_time((when.replace(tzinfo=UTC)).isoformat().replace("+00:00", "Z"), "t").utcoffset() == timedelta(0)
