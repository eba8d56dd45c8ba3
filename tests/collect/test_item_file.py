"""Items from files: TRL pairs, lists and numbered columns, chats, gold items, and bad rows by file and line."""

from __future__ import annotations

import json

import pytest

from rlhf_lightning.collect.item_file import read_items
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.question.rating import RatingQuestion
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import Message

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
