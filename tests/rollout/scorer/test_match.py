"""Right and wrong answers, by hand."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.rollout.scorer.match import MatchScorer, extract_answer, to_number

CASES = [
    ({}, "18", " 18\n", 1.0),
    ({}, "18", "it is 18", 0.0),
    ({}, "Paris", "paris", 0.0),
    ({"case": False}, "Paris", "paris", 1.0),
    ({"compare": "numeric"}, "18", "18.0", 1.0),
    ({"compare": "numeric"}, 18, "$18", 1.0),
    ({"compare": "numeric"}, "18", "nineteen", 0.0),
    ({"compare": "numeric", "extract": "last_number"}, "1,234.5", "3 + 4, so 1234.50.", 1.0),
    ({"compare": "numeric", "extract": "last_number"}, "18", "18 of 20", 0.0),
    ({"compare": "numeric", "extract": "gsm8k"}, "She has 12*7=84\n#### 16", "16 is 16\n#### $16", 1.0),
    ({"compare": "numeric", "extract": "gsm8k"}, "16", "#### -16", 0.0),
    ({"compare": "numeric", "extract": "gsm8k"}, "16", "it is 16", 0.0),
    ({"extract": "gsm8k"}, "16", "#### 16 ", 1.0),
    ({"extract": r"\\boxed\{(.*?)\}"}, r"x/2", r"so \boxed{1} and \boxed{x/2}", 1.0),
    ({"extract": r"[A-D]"}, "B", "A or B", 1.0),
    ({"compare": "numeric", "tolerance": 0.01}, "3.14159", "3.15", 1.0),
    ({"compare": "regex"}, r"\b4\b", "2 + 2 is 4.", 1.0),
    ({"compare": "regex", "case": False}, "four", "FOURTEEN", 1.0),
    ({"compare": "regex"}, r"^4$", "2 + 2 is 4.", 0.0),
]


@pytest.mark.parametrize(("settings", "answer", "response", "score"), CASES)
def test_an_answer_is_right_or_wrong(scored_of, settings, answer, response, score):
    rollout = scored_of(torch.ones(2, 1), responses=[response, response], columns={"answer": [answer, None]})
    assert MatchScorer(**settings)(rollout) == [score, None]


def test_numbers_and_answers_are_read_from_texts():
    assert [to_number(text) for text in ("-3 apples", "+.5", "12,345", "1,23", "a 1", "")] == [-3.0, 0.5, 12345.0, 1.0, None, None]
    assert extract_answer("1 2 3", "last_number") == "3"
    assert extract_answer("none", "last_number") is None


def test_a_missing_column_is_named_with_those_that_exist(scored_of):
    rollout = scored_of(torch.ones(1, 1), columns={"answer": ["1"]})
    for act in (lambda: MatchScorer(column="anwser")(rollout), lambda: MatchScorer(column="anwser").check_columns(["answer"])):
        with pytest.raises(ConfigError, match=r"rollout_scorer\.match\.column=anwser: .*did you mean 'answer'"):
            act()
