"""Spans count characters, not bytes or UTF-16 units."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.question.spans import SpansQuestion
from rlhf_lightning.collect.questions import ItemView
from rlhf_lightning.errors import ConfigError

SHOWN = ItemView("p", ["a😀b wrong"])


def test_spans_carry_their_label_and_its_value():
    question = SpansQuestion(labels={"error": -1.0, "style": -0.25})
    value = question.parse([{"start": 4, "end": 9, "label": "style"}, {"start": 1, "end": 2, "label": "error"}], SHOWN, 0)
    [record] = question.feedback(value, SHOWN, 0)
    spans = record.judgement.spans
    assert [SHOWN.responses[0][s.start : s.end] for s in spans] == ["😀", "wrong"]
    assert [(s.label, s.value) for s in spans] == [("error", -1.0), ("style", -0.25)]


def test_no_span_is_an_answer():
    assert SpansQuestion().feedback(SpansQuestion().parse([], SHOWN, 0), SHOWN, 0)[0].judgement.spans == ()


@pytest.mark.parametrize(
    "span",
    [
        {"start": 3, "end": 3},
        {"start": 0, "end": 10},
        {"start": -1, "end": 2},
        {"start": 0.0, "end": 2},
        {"start": 0, "end": 2, "label": "?"},
        3,
    ],
)
def test_spans_outside_of_the_text_are_refused(span):
    value = {"label": "error"} | span if isinstance(span, dict) else span
    with pytest.raises(ValueError, match=r"expected|labels"):
        SpansQuestion().parse([value], SHOWN, 0)


@pytest.mark.parametrize("labels", [{}, {"a": 2.0}, {str(i): 0.0 for i in range(10)}])
def test_labels_have_values_and_keys(labels):
    with pytest.raises(ConfigError, match="labels"):
        SpansQuestion(labels=labels)
