"""feedback_annotator=judge: records of pairs and ratings, agreement with people, and whole rounds through a server."""

from __future__ import annotations

import json

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.annotator.judge import JudgeAnnotator
from rlhf_lightning.flow import Feedback, Ranking, Rating
from rlhf_lightning.interfaces import AnnotatorContext
from rlhf_lightning.judge.settings import JudgeSettings
from rlhf_lightning.registry import load_components
from rlhf_lightning.task.reviews import Reviews
from tests.fixtures.chat_server import chat_server, completion, longer_wins

load_components()
GROUPS = [(f"Prompt {i}", ["a", "bb", "ccc", "dddd"]) for i in range(5)]


@pytest.fixture
def annotator_of(tmp_path):
    def make(server, log, **settings):
        judge = JudgeSettings(url=server.url, model="m", cache=str(tmp_path / "judge.jsonl"))
        context = AnnotatorContext(Reviews(demonstrations=2), tmp_path, log.append, {"judge": judge}.__getitem__)
        return JudgeAnnotator(context, **settings)

    return make


def test_pairs_and_ratings_are_records(annotator_of):
    log = []
    with chat_server(longer_wins) as server:
        annotator = annotator_of(server, log, comparisons=2, ratings=3)
        feedback = annotator.judge(GROUPS, number=1)
        rankings = [record for record in feedback if isinstance(record.judgement, Ranking)]
        ratings = [record for record in feedback if isinstance(record.judgement, Rating)]
        assert len(rankings) == 10
        assert all((len(r.responses[0]) > len(r.responses[1])) == (r.judgement.ranks == (1, 2)) for r in rankings)
        assert all(sorted(text for r in rankings[i : i + 2] for text in r.responses) == GROUPS[0][1] for i in range(0, 10, 2))
        assert [(r.responses[0], r.judgement.value) for r in ratings[:3]] == [("a", 1.0), ("bb", 2.0), ("ccc", 3.0)]
        assert {record.annotator for record in feedback} == {"judge m"}
        asked = len(server.requests)
        assert annotator_of(server, log, comparisons=2, ratings=3).judge(GROUPS, number=1) == feedback
        assert len(server.requests) == asked
        assert annotator.judge(GROUPS, number=2) != feedback
    assert "10 pairs in both orders, 100% answered alike" in " ".join(log)


def test_a_kind_asked_for_alone(annotator_of):
    with chat_server(longer_wins) as server:
        annotator = annotator_of(server, [], comparisons=0)
        assert annotator.judge(GROUPS, number=1) == []
        (record,) = annotator.judge([("p", ["long", "b"])], number=1, kinds=("ranking",))
        assert isinstance(record.judgement, Ranking)
        assert annotator.judge([("p", ["long", "b"])], number=1, kinds=("edit",)) == []


def test_its_agreement_with_people_is_measured(annotator_of, tmp_path):
    people = tmp_path / "people.jsonl"
    rows = [
        Feedback(prompt=f"q{i}", responses=("short", "much longer"), judgement=Ranking(ranks=(0, 1) if i < 3 else (1, 0)))
        for i in range(12)
    ]  # fmt: skip
    tie = Feedback(prompt="t", responses=("x", "y"), judgement=Ranking(ranks=(0, 0)))
    people.write_text("".join(row.model_dump_json() + "\n" for row in [*rows, tie]))
    log = []
    with chat_server(longer_wins) as server:
        annotator = annotator_of(server, log, people=str(people))
        annotator.judge(GROUPS[:1], number=1)
        annotator.judge(GROUPS[:1], number=2)
    assert sum("agrees with people on 75%" in line and "12 comparisons" in line for line in log) == 1
    people.write_text('{"prompt": "p"}\n')
    with chat_server(longer_wins) as server, pytest.raises(DataError, match=r"people\.jsonl:1"):
        annotator_of(server, log, people=str(people)).judge(GROUPS, number=1)


def test_rounds_are_judged_through_a_server_once(command, world, tmp_path):
    """A run learns from the judge's pairs; a second one asks nothing; one that always says A is named."""
    cache = f"judge.cache={tmp_path / 'cache.jsonl'}"
    words = ["feedback_annotator=judge", "judge.model=m", "stage.prompts=12", "stage.responses=2"]
    with chat_server(longer_wins) as server:
        first = command(*world.rounds(*words, cache, f"judge.url={server.url}"))
        assert first.code == 0, first.error
        rows = [json.loads(line) for line in (first.folder / "round_1/feedback.jsonl").read_text().splitlines()]
        assert {row["annotator"] for row in rows} == {"judge m"}
        asked = len(server.requests)
        again = command(*world.rounds(*words, cache, f"judge.url={server.url}"))
        assert (again.code, len(server.requests)) == (0, asked)
        assert again.result()["metrics"] == first.result()["metrics"]
    with chat_server(lambda body, number: completion("A")) as server:
        outcome = command(*world.rounds(*words, f"judge.cache={tmp_path / 'a.jsonl'}", f"judge.url={server.url}"))
    assert outcome.code == 2
    assert "judge m prefers whichever response comes first" in outcome.error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "judge.url"),
        (["judge.url=http://x"], "judge.model"),
        (["judge.url=x", "judge.model=m"], "http://"),
        (["judge.url=http://x", "judge.model=m", "judge.rating_scale=[1,10]"], "judge.rating_scale"),
        (["judge.url=http://x", "judge.model=m", "judge.rubric=missing.txt"], "missing.txt"),
        (["feedback_annotator.judge.share=0.5", "judge.url=http://x", "judge.model=m"], "feedback_annotator.judge.share"),
    ],
)
def test_settings_are_checked_before_a_model_loads(words, reason, command, world):
    outcome = command(*world.rounds("feedback_annotator=judge", *words, "--check"))
    assert outcome.code == 2
    assert reason in outcome.error
