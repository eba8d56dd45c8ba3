"""Contract of questions."""

from __future__ import annotations

import json
from typing import Any

from rlhf_lightning.collect.questions import ItemView, Question
from rlhf_lightning.flow import Feedback
from rlhf_lightning.testing.trial import Trial

GARBAGE: tuple[Any, ...] = ({"nothing": 1}, [[]], -1e30)


def collect_question(trial: Trial) -> None:
    """Refuse nonsense, store an answer as JSON, and make records of it."""
    question: Question = trial.make()
    assert question.script.is_file(), f"the page's module {question.script} is missing"
    json.dumps(question.describe())
    view = ItemView("The lamp:", ("good", "bad"), ("a", None), annotator="ada")
    for value in GARBAGE:
        try:
            question.parse(value, view, 0)
        except ValueError:
            continue
        raise AssertionError(f"{value!r} is taken as an answer")
    stored = question.parse("a good lamp" if trial.example is None else trial.example, view, 0)
    assert json.loads(json.dumps(stored)) == stored, "an answer must be JSON"
    assert question.parse(stored, view, 0) == stored, "a stored answer must parse to itself"
    records = question.feedback(stored, view, 0)
    assert records
    assert all(isinstance(record, Feedback) and record.annotator == "ada" for record in records)


CONTRACTS = {"collect_question": collect_question}
