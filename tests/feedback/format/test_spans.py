"""Marked stretches, of one and of several raters."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.spans import SpansFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, SpanLabel, Spans
from rlhf_lightning.registry import make

WORDS = {"value": "severity", "values": {"Major": -1.0, "Minor": -0.3}}


def read(marks: Any, rest: dict[str, Any] | None = None, **settings: Any) -> list[Feedback] | None:
    row = {"prompt": "p", "response": "one two two", "spans": marks}
    return SpansFormat(**settings)(Row(row | (rest or {}), "f:1"))


def spans_of(record: Feedback) -> list[tuple[int, int, float, str | None]]:
    assert isinstance(record.judgement, Spans)
    return [(span.start, span.end, span.value, span.label) for span in record.judgement.spans]


def test_by_place_and_by_text() -> None:
    found = read([{"start": 0, "end": 3, "value": 1}, {"span": "e t", "value": -0.5, "label": "odd"}], {"annotator": "A", "model": "m"})
    spans = (SpanLabel(start=0, end=3, value=1), SpanLabel(start=2, end=5, value=-0.5, label="odd"))
    expected = Feedback(prompt="p", responses=("one two two",), judgement=Spans(spans=spans), annotator="A", models=("m",), origin="f:1")
    assert found == [expected]


def test_an_empty_list_says_that_nothing_was_marked() -> None:
    (record,) = read([]) or []
    assert (record.judgement, record.annotator) == (Spans(spans=()), None)
    assert read(None) is None


def test_words_have_values() -> None:
    (record,) = read([{"span": "one", "severity": "Major"}, {"start": 4, "end": 7, "severity": "Minor"}], **WORDS) or []
    assert spans_of(record) == [(0, 3, -1.0, None), (4, 7, -0.3, None)]


def test_unclear_places() -> None:
    marks = [{"span": "two", "value": -1}, {"span": "none", "value": -1}, {"span": None, "value": -1}, {"span": "one", "value": 1}]
    assert [spans_of(record) for record in read(marks, unclear="first") or []] == [[(4, 7, -1.0, None), (0, 3, 1.0, None)]]
    assert [spans_of(record) for record in read(marks, unclear="drop") or []] == [[(0, 3, 1.0, None)]]
    for mark in marks[:3]:
        with pytest.raises(DataError, match=r"spans\[0\].span is .*unclear=first"):
            read([mark])


def test_one_record_per_rater() -> None:
    marks = [{"span": "one", "value": -1, "by": 1}, {"span": "e t", "value": 0, "by": "Bo"}, {"span": "ne", "value": -1, "by": 1}]
    found = {record.annotator: [span[:2] for span in spans_of(record)] for record in read(marks, rater="by") or []}
    assert found == {"rater1": [(0, 3), (1, 3)], "Bo": [(2, 5)]}
    everyone = ("rater0", "rater1", "Bo")
    found = {record.annotator: [span[:2] for span in spans_of(record)] for record in read(marks, rater="by", raters=everyone) or []}
    assert found == {"rater0": [], "rater1": [(0, 3), (1, 3)], "Bo": [(2, 5)]}
    assert [record.annotator for record in read([], rater="by", raters=everyone) or []] == list(everyone)
    assert [record.annotator for record in read([], {"annotator": "A"}, rater="by") or []] == ["A"]


def test_a_rater_whose_marks_are_left_out_was_there() -> None:
    found = read([{"span": "two", "value": -1, "by": 0}], rater="by", unclear="drop") or []
    assert [(record.annotator, record.judgement) for record in found] == [("rater0", Spans(spans=()))]


@pytest.mark.parametrize(
    ("marks", "settings", "words"),
    [
        ({}, {}, "spans must be a list, not an object"),
        (["one"], {}, r"spans\[0\] must be an object"),
        ([{"span": "one"}], {}, r"'spans\[0\].value' is missing"),
        ([{"value": 1}], {}, r"'spans\[0\].span' is missing"),
        ([{"span": "one", "value": True}], {}, "must be a finite number, not true"),
        ([{"span": "one", "value": -2}], {}, r"spans\[0\].value is -2, off the scale"),
        ([{"span": "one", "value": "Major"}], {}, r"feedback_format.spans.values=\{WORD:NUMBER\}"),
        ([{"span": "one", "severity": "major"}], WORDS, r"spans\[0\].severity is text \('major'\), none of .*: Major, Minor"),
        ([{"span": "one", "severity": 1}], WORDS, r"spans\[0\].severity must be text"),
        ([{"span": "one", "value": 1, "by": None}], {"rater": "by"}, r"spans\[0\].by is null"),
        ([{"span": "one", "value": 1, "by": True}], {"rater": "by"}, r"spans\[0\].by must be text, not true"),
        ([{"span": "one", "value": 1, "by": 3}], {"rater": "by", "raters": ("rater0",)}, "'rater3', who is none of"),
        ([{"span": "one", "value": 1, "label": []}], {}, r"spans\[0\].label must be text"),
    ],
)
def test_refused(marks: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(marks, **settings)


def test_settings_refused() -> None:
    with pytest.raises(ConfigError, match=r"feedback_format.spans.raters needs"):
        SpansFormat(raters=("a",))
    with pytest.raises(ConfigError, match="less than or equal to 1"):
        make("feedback_format", "spans", {"values": {"Major": 3}})
