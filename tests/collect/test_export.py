"""Exports read back by the formats of TRL, Label Studio and Argilla: the same judgements."""

from __future__ import annotations

import itertools
import json

import pytest
from sqlalchemy import select

from rlhf_lightning.cli.export import export
from rlhf_lightning.collect.answers import Answer, skip, store_answer
from rlhf_lightning.collect.assignment import open_assignments
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.question.comment import CommentQuestion
from rlhf_lightning.collect.question.edit import EditQuestion
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.question.ranking import RankingQuestion
from rlhf_lightning.collect.question.rating import RatingQuestion
from rlhf_lightning.collect.question.spans import SpansQuestion
from rlhf_lightning.collect.question.thumbs import ThumbsQuestion
from rlhf_lightning.database.connection import Database
from rlhf_lightning.database.tables import annotator, answer, assignment
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.intake import ingest
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.feedback.quality.votes import data_set
from rlhf_lightning.feedback.reading import Reader
from rlhf_lightning.feedback.row import Row
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
ITEMS += [Item(CHAT, (f"faulty {HOSTILE}", "b", "c"), ("x", "y", None), "set")]
SKIPPED = len(ITEMS)
REASON = f"no sense {HOSTILE}"
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
    """A collection in which two people answered every question of four items and skipped one."""
    collection = make_collection(tmp_path_factory.mktemp("export"), QUESTIONS, ITEMS, overlap=2)
    project, choices = collection.project, itertools.cycle(CHOICES)
    with project.database.write() as connection:
        for person, number in itertools.product((2, 3), range(5)):
            row = open_assignments(connection, person, 0.0, project.rules)[0]
            if row.item == SKIPPED:
                sent = Answer(f"{person} skips", row.id, 0, {}, 2.5, 9.0)
                skip(connection, person, sent, REASON if person == 2 else "", person == 2, 1000.0 + number)
                continue
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


def judgement_of(step: str, value, texts: list[str]) -> tuple[dict, list[str]]:
    """What a step's answer says in the record, and of which texts."""
    name, _, index = step.partition("/")
    text = [texts[int(index)]] if index else texts
    match name:
        case "pairwise":
            ranks = {"a": (1, 2), "b": (2, 1)}.get(value["choice"], (1, 1))
            margin = float(value["strength"]) if "strength" in value else None
            return {"kind": "ranking", "ranks": ranks, "margin": margin, "all_bad": value["choice"] == "both_bad"}, text
        case "ranking":
            return {"kind": "ranking", "ranks": tuple(value), "margin": None, "all_bad": False}, text
        case "rating" | "helpful":
            scale, aspect = ((1.0, 5.0), None) if name == "rating" else ((0.0, 1.0), "helpful")
            return {"kind": "rating", "value": float(value), "scale": scale, "aspect": aspect, "turn": None}, text
        case "thumbs":
            return {"kind": "thumbs", "up": value["up"]}, text
        case "edit":
            return {"kind": "edit"}, [*text, value]
        case "spans":
            marks = ({"start": s["start"], "end": s["end"], "value": VALUES[s["label"]], "label": s["label"]} for s in value)
            return {"kind": "spans", "spans": tuple(marks)}, text
    return {"kind": "comment", "text": value, "start": None, "end": None}, text


def test_own_records_are_all_answers_and_skips(location, records):
    """Every row of the database, put together by hand: judgement, texts, positions, models, person, time, seconds."""
    expected = []
    database = Database(location)
    with database.read() as connection:
        columns = (assignment.c.item, assignment.c.display_order, assignment.c.state, annotator.c.name, answer.c.steps, answer.c.time)
        joined = assignment.join(annotator, annotator.c.id == assignment.c.annotator).join(answer, answer.c.key == assignment.c.answer)
        rows = connection.execute(select(*columns, answer.c.seconds).select_from(joined)).all()
    database.close()
    for row in rows:
        stored = ITEMS[row.item - 1]
        texts = [stored.responses[i] for i in row.display_order]
        models = [stored.models[i] for i in row.display_order] if stored.models else None
        judged = [(*judgement_of(step, value, texts), step) for step, value in row.steps.items()]
        if row.state == "skipped":
            reason = REASON if row.name == "ada" else None
            judged = [({"kind": "skip", "reason": reason, "flagged": reason is not None}, texts, "")]
        for judgement, responses, step in judged:
            index = step.partition("/")[2]
            positions, authors = (tuple(range(len(texts))), models) if not index else ((int(index),), models and [models[int(index)]])
            if judgement["kind"] == "edit":
                positions, authors = None, models and [*authors, None]
            said = (stored.prompt, tuple(responses), judgement, positions, authors and tuple(authors), row.name, row.time, row.seconds)
            expected.append(repr((*said, stored.source, f"collection:{row.item}")))
    read = [
        repr((r.prompt, r.responses, r.judgement.model_dump(), r.positions, r.models, r.annotator, r.time.timestamp(), r.seconds, r.source,
              r.origin))
        for r in records
    ]  # fmt: skip
    assert sorted(read) == sorted(expected)
    assert sum(record.judgement.kind == "skip" for record in records) == 2
    assert {data_set(record) for record in records} == {"set", "collection"}  # agreement is measured within each


def test_skips_are_counted_and_never_learned_from(records):
    rows = [Row({}, "x", record.model_dump_json().encode(), intact=True) for record in records]
    for row, record in zip(rows, records, strict=True):
        row.data.update(json.loads(record.model_dump_json()))
    intake = ingest(Reader(rows, [make("feedback_format", "record", {})]), {})
    assert intake.collected["skip"] == 2
    assert intake.remaining["skip"] == 0
    assert all(record.judgement.kind != "skip" for record in [*intake.feedback, *(judged.feedback for judged in standardise(records))])
    assert len(intake.feedback) == len(records) - 2 == len(standardise(records))
    assert [line for line in intake.notes if "skip" in line] == [
        f"skips: removed 1: flagged as faulty: {REASON} (collection:{SKIPPED})",
        f"skips: removed 1: skipped (collection:{SKIPPED})",
    ]


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
    judged = [record for record in records if record.judgement.kind != "skip"]
    of_scale = [record for record in judged if record.judgement.kind != "rating" or record.judgement.aspect is None]
    path = tmp_path / "tasks.json"
    back = read_back(location, "label_studio", path, "json", "label_studio", **settings | {"controls": controls | {"helpful": "ignore"}})
    assert sorted(essence(record, "time", "seconds") for record in back) == sorted(
        essence(record, "time", "seconds") for record in of_scale
    )
    tasks = json.loads(path.read_text())
    assert len({task["id"] for task in tasks}) == len(tasks) < len(records)
    assert sum(annotation["was_cancelled"] for task in tasks for annotation in task["annotations"]) == 2
    assert any(record["judgement"].get("all_bad") for task in tasks for record in task["meta"]["records"])


def test_argilla_records_give_the_same_judgements(location, records, tmp_path):
    questions = ASPECTS | {"comment": "comment", "helpful": "aspect"}
    settings = {"questions": questions | {"rating": "ignore"}, "scale": [0, 1], "spans": VALUES}
    judged = [record for record in records if record.judgement.kind != "skip"]
    of_scale = [record for record in judged if record.judgement.kind != "rating" or record.judgement.aspect is not None]
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
