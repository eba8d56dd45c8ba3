"""Items from files: TRL pairs, lists and numbered columns, chats, gold items, and bad rows by file and line."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from rlhf_lightning.collect.imported_judgements import add_judgements
from rlhf_lightning.collect.item_file import read_items
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.question.rating import RatingQuestion
from rlhf_lightning.database.records import record_rows
from rlhf_lightning.database.tables import item as item_table
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.registry import make
from tests.fixtures.collection import make_collection

QUESTIONS = {"pairwise": PairwiseQuestion(), "rating": RatingQuestion()}
USER = [{"role": "user", "content": "hi"}]
CHAT = (Message(role="user", content="hi"),)
HOSTILE = "<script>alert(1)</script>\u202e 😀"


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def read(tmp_path, text: str, name: str = "items.jsonl") -> list[Item]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return list(read_items(str(tmp_path / name), "collect.items", QUESTIONS))


@pytest.mark.parametrize(
    ("row", "item"),
    [
        ({"prompt": "p", "responses": ["a", HOSTILE]}, Item("p", ("a", HOSTILE))),
        ({"prompt": "p", "completions": ["a", "b", "c"]}, Item("p", ("a", "b", "c"))),
        ({"prompt": "p", "response": "a"}, Item("p", ("a",))),
        ({"responses": ["a", "b"]}, Item("", ("a", "b"))),
        ({"prompt": "p", "response_2": "b", "response_1": "a"}, Item("p", ("a", "b"))),
        ({"prompt": "p", "Response A": "a", "Response B": "b", "response_c": ""}, Item("p", ("a", "b"))),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, Item("p", ("a", "b"))),
        ({"prompt": USER, "chosen": assistant("a"), "rejected": assistant("b")}, Item(CHAT, ("a", "b"))),
        ({"chosen": USER + assistant("a"), "rejected": USER + assistant("b")}, Item(CHAT, ("a", "b"))),
        ({"prompt": USER, "responses": ["a", "b"], "source": "set", "models": ["x", None], "priority": 2},
         Item(CHAT, ("a", "b"), ("x", None), "set", None, 2.0)),
        ({"prompt": "p", "responses": ["a", "b"], "gold": {"pairwise": {"choice": "a"}}},
         Item("p", ("a", "b"), gold={"pairwise": {"choice": "a"}})),
        ({"prompt": "p", "responses": ["a", "b"], "gold": {"rating/1": 5}}, Item("p", ("a", "b"), gold={"rating/1": 5.0})),
    ],
)  # fmt: skip
def test_a_row_is_an_item(row, item, tmp_path):
    assert read(tmp_path, json.dumps(row)) == [item]
    assert read(tmp_path, json.dumps([row]), "items.json") == [item]


def test_tables_have_numbered_columns_or_pairs(tmp_path):
    text = f'prompt,response_1,response_2,source\n"p, q",a,"b\n{HOSTILE}",set\np2,c,,\n'
    assert read(tmp_path, text, "items.csv") == [Item("p, q", ("a", f"b\n{HOSTILE}"), source="set"), Item("p2", ("c",))]
    assert read(tmp_path, "prompt\tchosen\trejected\np\ta\tb\n", "items.tsv") == [Item("p", ("a", "b"))]


def test_a_table_has_gold_and_models_as_json(tmp_path):
    quoted = '"{""pairwise"": {""choice"": ""b""}}","[""x"", null]",2.5'
    text = f"prompt,response_1,response_2,gold,models,priority\np,a,b,{quoted}\nq,c,d,,,\n"
    assert read(tmp_path, text, "gold.csv") == [
        Item("p", ("a", "b"), ("x", None), gold={"pairwise": {"choice": "b"}}, priority=2.5),
        Item("q", ("c", "d")),
    ]
    for cell, reason in (("better", "gold is JSON"), ('"{""rating/0"": 9}"', "gold: rating/0.*1 to 5"), ("7", "gold must be an object")):
        with pytest.raises(DataError, match=rf"gold\.csv:2: .*{reason}"):
            read(tmp_path, f"prompt,response,gold\np,a,{cell}\n", "gold.csv")


def test_fields_of_other_names_are_renamed(tmp_path):
    (tmp_path / "items.jsonl").write_text(json.dumps({"question": "p", "meta": {"one": "a", "two": "b"}}))
    rename = {"question": "prompt", "meta.one": "response_1", "meta.two": "response_2"}
    assert list(read_items(str(tmp_path / "items.jsonl"), "collect.items", QUESTIONS, rename=rename)) == [Item("p", ("a", "b"))]


PAIR = [{"from_name": "better", "to_name": "x", "type": "pairwise", "value": {"selected": "right"}}]
STARS = [{"from_name": "stars", "to_name": "x", "type": "rating", "value": {"rating": 4}}]
LABEL_STUDIO = [
    {"id": 1, "data": {"prompt": "p", "answer1": "a", "answer2": "b", "source": "set"}, "annotations": [
        {"completed_by": {"email": "ada@x"}, "created_at": "2026-01-31T12:00:00Z", "lead_time": 3.5, "result": PAIR},
        {"completed_by": {"email": "ben@x"}, "was_cancelled": True, "result": []}],
     "predictions": [{"model_version": "judge-1", "score": 0.9, "result": PAIR}]},
    {"id": 2, "data": {"prompt": USER, "response": HOSTILE}, "annotations": [{"completed_by": 7, "result": STARS}], "predictions": []},
    {"id": 3, "data": {"prompt": "r", "items": [{"id": "1", "body": "x"}, {"id": "2", "html": "y"}, {"id": "3", "body": "z"}]}},
]  # fmt: skip
ARGILLA = [
    {"id": "1", "fields": {"prompt": "p", "response": "a"}, "responses": {"stars": [
        {"value": 4, "user_id": "ada", "status": "submitted"}, {"value": 1, "user_id": "ben", "status": "draft"}]},
     "suggestions": {"stars": {"value": 2, "agent": "judge-1", "score": 0.5}}},
    {"id": "2", "fields": {"prompt": "q", "response_1": "a", "response_2": "b"}, "responses": {}, "suggestions": {}},
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rows", "settings", "texts", "judged"),
    [
        ("label_studio", LABEL_STUDIO, {"scale": [1, 5]}, [("p", "a", "b"), (CHAT, HOSTILE), ("r", "x", "y", "z")],
         [["ada@x 3.5 [1, 0]"], ["7 None 4.0"], []]),
        ("argilla", ARGILLA, {"scale": [1, 5], "questions": {"stars": "rating"}}, [("p", "a"), ("q", "a", "b")], [["ada None 4.0"], []]),
    ],
)  # fmt: skip
def test_files_of_other_tools_are_items_with_their_judgements(name, rows, settings, texts, judged, tmp_path):
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(rows))
    formats = {"mine": make("feedback_format", name, settings)}
    items = list(read_items(str(path), "collect.items", QUESTIONS, formats))
    assert [(item.prompt, *item.responses) for item in items] == texts

    def brief(record) -> str:
        verdict = list(record.judgement.ranks) if record.judgement.kind == "ranking" else record.judgement.value
        return f"{record.annotator} {record.seconds} {verdict}"

    assert [[brief(record) for record in item.judgements] for item in items] == judged
    assert [record.annotator for item in items for record in item.predictions] == ["judge-1"]
    plain = list(read_items(str(path), "collect.items", QUESTIONS, {"rating": None}))
    assert [(item.prompt, *item.responses) for item in plain] == texts
    assert [item.has_unread for item in plain] == [bool(names) for names in judged]
    # In the collection: once, beside the slots, predictions apart.
    collection = make_collection(tmp_path, QUESTIONS, items)
    with collection.project.database.write() as connection:
        expected = sum(map(len, judged)) + 1
        assert [add_judgements(connection, items, 1000.0), add_judgements(connection, items, 2000.0)] == [expected, 0]
        assert sorted(row["annotator"] for row in record_rows(connection)) == sorted(
            brief.split()[0] for names in judged for brief in names
        )
        assert sorted(row["annotator"] for row in record_rows(connection, surplus=True))[-1] == "judge-1"
        assert set(connection.scalars(select(item_table.c.free))) == {1}
        assert set(connection.scalars(select(item_table.c.answered))) == {0}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p"}, "no responses.*response_1.*prompt"),
        ({"prompt": " ", "response": "a"}, "prompt"),
        ({"prompt": "p", "responses": []}, "responses"),
        ({"prompt": "p", "responses": "a"}, "responses"),
        ({"prompt": "p", "responses": ["a", " "]}, r"responses\[1\]"),
        ({"prompt": "p", "responses": ["a"] * 9}, "9 responses.*1 to 8"),
        ({"prompt": "p", "responses": ["a", "b"], "models": ["x"]}, "models.*2"),
        ({"prompt": "p", "responses": ["a"], "priority": "high"}, "priority"),
        ({"prompt": "p", "responses": ["a", "b"], "gold": "a"}, "gold.*pairwise"),
        ({"prompt": "p", "responses": ["a", "b"], "gold": {"thumbs": True}}, "gold.*thumbs"),
        ({"prompt": "p", "responses": ["a", "b"], "gold": {"rating/0": 9}}, "gold.*rating/0.*1 to 5"),
        ({"prompt": [{"role": "robot", "content": "x"}], "response": "a"}, r"prompt\[0\]\.role"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_reason(row, reason, tmp_path):
    with pytest.raises(DataError, match=rf"(?s)items\.jsonl:2: .*{reason}"):
        read(tmp_path, json.dumps({"prompt": "p", "response": "a"}) + "\n" + json.dumps(row))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("items.jsonl", '{"prompt": "p", "response": "a"}\n{"prompt": ', r"items\.jsonl:2"),
        ("items.csv", "prompt,response\np,a\nq\n", r"items\.csv:3"),
    ],
)
def test_a_damaged_line_is_named(name, text, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        read(tmp_path, text, name)


def test_another_kind_of_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"collect\.items=.*items\.xlsx.*jsonl"):
        read(tmp_path, "", "items.xlsx")
