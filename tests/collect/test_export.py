"""Exports read back by the formats of TRL, Label Studio and Argilla: the same judgements."""

from __future__ import annotations

import itertools
import json

import pytest

from rlhf_lightning.cli.export import export
from rlhf_lightning.collect.answers import Answer, store_answer
from rlhf_lightning.collect.assignment import open_assignments
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.question.comment import CommentQuestion
from rlhf_lightning.collect.question.edit import EditQuestion
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.question.ranking import RankingQuestion
from rlhf_lightning.collect.question.rating import RatingQuestion
from rlhf_lightning.collect.question.spans import SpansQuestion
from rlhf_lightning.collect.question.thumbs import ThumbsQuestion
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.reading import Reader
from rlhf_lightning.flow import Message, Ranking
from rlhf_lightning.registry import make
from tests.fixtures.collection import make_collection

HOSTILE = "<script>alert(1)</script>\u202e{{7*7}} e\u0301 😀"
CHAT = (Message(role="system", content="Be kind."), Message(role="user", content=HOSTILE))
QUESTIONS = {
    "pairwise": PairwiseQuestion(strengths=3),
    "ranking": RankingQuestion(),
    "rating": RatingQuestion(),
    "helpful": RatingQuestion(low=0, high=1, step=0.25, display="slider", aspect="helpful"),
    "thumbs": ThumbsQuestion(),
    "edit": EditQuestion(),
    "spans": SpansQuestion(),
    "comment": CommentQuestion(),
}
ITEMS = [Item(prompt, (f"one {HOSTILE}", "two 😀"), ("x", None), "set") for prompt in ("p", CHAT)]
ITEMS += [Item(f"of {count}", tuple(f"{i} {HOSTILE}" for i in range(count))) for count in (3, 5)]
CHOICES = [{"choice": "a", "strength": 2}, {"choice": "tie"}, {"choice": "both_bad"}, {"choice": "b", "strength": 1}]
RANKS = {3: [2, 1, 3], 5: [1, 3, 2, 1, 3]}
ASPECTS = {"rating": "rating", "helpful": "aspect", "ranking": "ranking", "thumbs": "thumbs", "edit": "edit", "spans": "spans"}
VALUES = {"error": -1.0, "good": 1.0}


def steps(number: int, choice: dict, responses: list[str]) -> dict:
    of_each = {"rating": 1 + number, "helpful": 0.75, "thumbs": {"up": bool(number % 2)}, "comment": f"{number} {HOSTILE}"}
    values = {f"{name}/{i}": value for name, value in of_each.items() for i in range(len(responses))}
    values |= {f"edit/{i}": text if number % 2 else f"better {text}" for i, text in enumerate(responses)}
    values |= {f"spans/{i}": [{"start": 0, "end": len(text), "label": "good"}] for i, text in enumerate(responses)}
    return values | ({"pairwise": choice, "ranking": [1, 2]} if len(responses) == 2 else {"ranking": RANKS[len(responses)]})


@pytest.fixture(scope="module")
def location(tmp_path_factory):
    """A collection in which two people answered every question of four items."""
    collection = make_collection(tmp_path_factory.mktemp("export"), QUESTIONS, ITEMS, overlap=2)
    project, choices = collection.project, itertools.cycle(CHOICES)
    with project.database.write() as connection:
        for person, number in itertools.product((2, 3), range(4)):
            row = open_assignments(connection, person, 0.0, project.rules)[0]
            responses = [ITEMS[row.item - 1].responses[i] for i in row.display_order]
            sent = Answer(f"{person} {row.id}", row.id, 0, steps(number, next(choices), responses), 1.5 + number, 9.0)
            store_answer(connection, person, sent, QUESTIONS, 1000.0 + number)
    project.database.close()
    return project.database.location


def read_back(location, kind, path, source, form, **settings) -> list:
    export([location, kind, str(path)])
    rows = make("feedback_source", source, {"path": str(path)})()
    return list(Reader(rows, [make("feedback_format", form, settings)]))


@pytest.fixture(scope="module")
def records(location, tmp_path_factory):
    """The judgements that are stored."""
    return read_back(location, "feedback", tmp_path_factory.mktemp("records") / "f.jsonl", "jsonl", "record")


def essence(record, *fields: str):
    """What a tool's format keeps: who said what about which texts, without "both bad" and the margin."""
    judgement = record.judgement
    texts = record.responses
    if isinstance(judgement, Ranking):
        dense = sorted(set(judgement.ranks))
        ranked = sorted((text, dense.index(rank)) for text, rank in zip(texts, judgement.ranks, strict=True))
        texts, judgement = tuple(ranked), "ranking"
    return repr((record.prompt, texts, judgement, record.annotator, [str(getattr(record, field)) for field in fields]))


def test_trl_pairs_are_the_decided_pairs_of_rankings_and_edits(location, records, tmp_path):
    pairs = read_back(location, "trl", tmp_path / "pairs.jsonl", "jsonl", "pairwise")
    expected = []
    for record in records:
        if record.judgement.kind == "ranking":
            ranked = list(zip(record.judgement.ranks, record.responses, record.models or [None] * 5, strict=False))
            expected += [(a, b, record) for a, b in itertools.permutations(ranked, 2) if a[0] < b[0]]
        elif record.judgement.kind == "edit" and record.responses[0] != record.responses[1]:
            models = record.models or (None, None)
            expected.append(((0, record.responses[1], models[1]), (1, record.responses[0], models[0]), record))
    wanted = [
        (r.prompt, (a[1], b[1]), tuple(m for m in (a[2], b[2])), getattr(r.judgement, "margin", None), r.annotator, str(r.time), r.seconds)
        for a, b, r in expected
    ]
    got = [(p.prompt, p.responses, p.models or (None, None), p.judgement.margin, p.annotator, str(p.time), p.seconds) for p in pairs]
    assert sorted(map(repr, got)) == sorted(map(repr, wanted))
    assert any(pair.judgement.margin for pair in pairs)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    chats = [row for row in rows if isinstance(row["prompt"], list)]
    assert chats
    assert all([message["role"] for message in row["chosen"]] == ["assistant"] for row in chats)


def test_label_studio_tasks_give_the_same_judgements(location, records, tmp_path):
    controls = {"helpful": "aspect", "edit": "edit", "comment": "comment"}
    settings = {"controls": controls, "scale": [1, 5], "up": ["up"], "down": ["down"], "spans": VALUES}
    settings["buckets"] = [f"rank_{i}" for i in range(1, 9)]
    of_scale = [record for record in records if record.judgement.kind != "rating" or record.judgement.aspect is None]
    path = tmp_path / "tasks.json"
    back = read_back(location, "label_studio", path, "json", "label_studio", **settings | {"controls": controls | {"helpful": "ignore"}})
    assert sorted(essence(record, "time", "seconds") for record in back) == sorted(
        essence(record, "time", "seconds") for record in of_scale
    )
    tasks = json.loads(path.read_text())
    assert len({task["id"] for task in tasks}) == len(tasks) < len(records)
    assert any(record["judgement"].get("all_bad") for task in tasks for record in task["meta"]["records"])


def test_argilla_records_give_the_same_judgements(location, records, tmp_path):
    questions = ASPECTS | {"comment": "comment", "helpful": "aspect"}
    settings = {"questions": questions | {"rating": "ignore"}, "scale": [0, 1], "spans": VALUES}
    of_scale = [record for record in records if record.judgement.kind != "rating" or record.judgement.aspect is not None]
    back = read_back(location, "argilla", tmp_path / "records.json", "json", "argilla", **settings)
    assert sorted(map(essence, back)) == sorted(map(essence, of_scale))


def test_a_wrong_export_is_named(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for args, text in (
        ([location, "csv", "x"], "label_studio.*csv"),
        (["none.sqlite", "trl", "x"], "none.sqlite"),
        (["x"], "export COLLECTION FORMAT FILE"),
        ([location, "trl", "."], "can't be written"),
    ):
        with pytest.raises(ConfigError, match=text):
            export(args)
