"""Labelled steps are stretches of the joined response."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.stepwise import StepwiseFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Feedback, SpanLabel, Spans


def read(data: dict[str, Any], **settings: Any) -> list[Feedback] | None:
    return StepwiseFormat(**settings)(Row({"prompt": "p"} | data, "f:1"))


def test_trl_stepwise_supervision() -> None:
    spans = (SpanLabel(start=0, end=3, value=1), SpanLabel(start=4, end=9, value=-1))
    expected = Feedback(prompt="p", responses=("One\nThree",), judgement=Spans(spans=spans), origin="f:1")
    assert read({"completions": ["One", "Three"], "labels": [True, False]}) == [expected]


@given(
    st.lists(st.tuples(st.text("a\n🙂", max_size=3).map("x".__add__), st.sampled_from([True, False, 0, None])), min_size=1, max_size=6),
    st.text("-\n", max_size=2),
)
def test_each_stretch_is_its_step(steps: list[tuple[str, Any]], separator: str) -> None:
    data = {"completions": [step for step, _ in steps], "labels": [label for _, label in steps]}
    judged = [(step, {True: 1.0, False: -1.0}[label] if isinstance(label, bool) else 0.0) for step, label in steps if label is not None]
    if not judged:
        with pytest.raises(DataError, match="labels has no label"):
            read(data, separator=separator, neutral=(0,))
        return
    (record,) = read(data, separator=separator, neutral=(0,)) or []
    assert isinstance(record.judgement, Spans)
    text = record.responses[0]
    assert text == separator.join(step for step, _ in steps)
    assert [(text[span.start : span.end], span.value) for span in record.judgement.spans] == judged


def test_other_labels() -> None:
    (record,) = read({"completions": ["a", "b", "c"], "labels": [-1, 0, 1]}, good=(1,), neutral=(0,), bad=(-1,)) or []
    assert isinstance(record.judgement, Spans)
    assert [span.value for span in record.judgement.spans] == [-1, 0, 1]


def test_not_mine() -> None:
    assert read({"completions": ["a"]}) is None
    assert read({"completions": ["a"], "labels": None}) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"labels": [True]}, "'completions' is missing"),
        ({"completions": ["a", "b"], "labels": [True]}, "labels has 1 items for 2 completions"),
        ({"completions": ["a"], "labels": [1]}, r"labels\[0\] must be one of: true, false; not a number \(1\)"),
        ({"completions": ["a"], "labels": []}, "labels is an empty list"),
        ({"completions": [], "labels": []}, "completions is an empty list"),
        ({"completions": ["a", " "], "labels": [True, True]}, r"completions\[1\] is blank"),
        ({"completions": ["a", 3], "labels": [True, True]}, r"completions\[1\] must be text"),
        ({"completions": "ab", "labels": [True, True]}, "completions must be a list"),
    ],
)
def test_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(data)


def test_one_label_one_meaning() -> None:
    with pytest.raises(ConfigError, match=r"feedback_format\.stepwise\.bad has true"):
        StepwiseFormat(bad=(True,))
