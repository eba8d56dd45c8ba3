"""feedback_annotator=program: JSON Lines in any order, invalid lines by number, and a crash that resumes."""

from __future__ import annotations

import sys

import pytest

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.feedback.annotator.program import ProgramAnnotator
from rlhf_lightning.flow import Edit, Ranking, Rating
from rlhf_lightning.interfaces import AnnotatorContext
from rlhf_lightning.task.reviews import Reviews

GROUPS = [(f"p{i}", ["a", "bbb", "cc"]) for i in range(4)]
START = "import json, sys\nquestions = [json.loads(line) for line in sys.stdin]\n"
ANSWER = """
def answer(q):
    lengths = [len(text) for text in q["responses"]]
    ranks = [1 + sum(other > length for other in lengths) for length in lengths]
    edits = [None] * (len(lengths) - 1) + [q["responses"][-1] + "!"]
    print(json.dumps({"id": q["id"], "ranking": ranks, "ratings": [None, 5, *[1] * (len(lengths) - 2)], "edits": edits}))
"""


@pytest.fixture
def annotator_of(tmp_path):
    def make(source, **settings):
        file = tmp_path / "judge.py"
        file.write_text(START + ANSWER + source)
        context = AnnotatorContext(Reviews(demonstrations=2), tmp_path)
        return ProgramAnnotator(context, command=f"{sys.executable} {file}", **settings)

    return make


def test_answers_in_any_order_become_records_in_the_order_of_the_prompts(annotator_of):
    feedback = annotator_of("for q in questions[::-1]: answer(q)").judge(GROUPS, number=1)
    assert [record.prompt for record in feedback[::4]] == ["p0", "p1", "p2", "p3"]
    assert [record.judgement for record in feedback[:4]] == [
        Ranking(ranks=(3, 1, 2)), Rating(value=5.0, scale=(1.0, 7.0)), Rating(value=1.0, scale=(1.0, 7.0)), Edit(),
    ]  # fmt: skip
    assert [record.responses for record in feedback[:4]] == [("a", "bbb", "cc"), ("bbb",), ("cc",), ("cc", "cc!")]
    alone = annotator_of("for q in questions: answer(q)").judge(GROUPS, number=1, kinds=("ranking",))
    assert {record.judgement.kind for record in alone} == {"ranking"}


def test_a_program_that_crashed_is_asked_the_others(annotator_of, tmp_path):
    crashing = "for q in questions[:2]: answer(q)\nprint('gone', file=sys.stderr)\nsys.exit(3)"
    with pytest.raises(UserError, match=r"code 3[\s\S]*gone"):
        annotator_of(crashing).judge(GROUPS, number=1)
    asked = tmp_path / "asked"
    source = f"open({str(asked)!r}, 'a').write(str(len(questions)) + '\\n')\nfor q in questions: answer(q)"
    feedback = annotator_of(source).judge(GROUPS, number=1)
    assert annotator_of(source).judge(GROUPS, number=1) == feedback
    assert asked.read_text() == "2\n"
    assert len(feedback) == 16
    annotator_of(source).judge(GROUPS, number=2)
    assert asked.read_text() == "2\n4\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("'no json'", "line 2.*JSON"),
        ("json.dumps({'id': 'other'})", "line 2: id 'other'"),
        ("json.dumps({'id': questions[1]['id'], 'ranking': [1]})", "line 2: ranking has 1 items.*3 responses"),
        ("json.dumps({'id': questions[1]['id'], 'ratings': [1, 2, 9]})", "line 2.*scale 1 to 7"),
        ("json.dumps({'id': questions[1]['id'], 'rating': 3})", "line 2: rating: Extra"),
    ],
)
def test_an_invalid_line_is_named_by_its_number(annotator_of, line, reason):
    with pytest.raises(UserError, match=reason):
        annotator_of(f"answer(questions[0])\nprint({line})").judge(GROUPS, number=1)


def test_a_silent_program_is_ended(annotator_of):
    with pytest.raises(UserError, match=r"no answer within 0\.5 s"):
        annotator_of("import time\ntime.sleep(60)", timeout=0.5).judge(GROUPS, number=1)


def test_a_missing_program_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no program 'nowhere'"):
        ProgramAnnotator(AnnotatorContext(Reviews(demonstrations=2), tmp_path), command="nowhere --x")
