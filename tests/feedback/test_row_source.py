"""What every source does with its rows, by way of jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from rlhf_lightning.config.schema import settings_of
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source import csv, hub, jsonl  # noqa: F401  (registers them)
from rlhf_lightning.feedback.source import json as array  # noqa: F401
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.registry import build, components

SHARED = {"path", "limit", "weight", "name", "explode", "ignore_fields", "rename"}


def written(folder: Path, *rows: Any, name: str = "f.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def read(path: Any, **settings: Any) -> list[Row | BadLine]:
    return list(jsonl.jsonl(path=path, **settings))


def data(path: Any, **settings: Any) -> list[dict[str, Any]]:
    items = read(path, **settings)
    assert all(isinstance(item, Row) for item in items), items
    return [item.data for item in items if isinstance(item, Row)]


def reason(path: Any, **settings: Any) -> tuple[str, str]:
    """Verdict and reason of the one line that isn't a row."""
    (line,) = (item for item in read(path, **settings) if isinstance(item, BadLine))
    return line.verdict, line.reason


def test_every_source_takes_the_same_settings() -> None:
    sources = {c.name: {setting.name for setting in settings_of(c.target)} for c in components("feedback_source")}
    assert set(sources) >= {"jsonl", "json", "csv", "hub"}
    assert [name for name, settings in sources.items() if not settings >= SHARED] == []


def test_several_paths_with_weights_by_overrides_alone(tmp_path: Path) -> None:
    one, two = written(tmp_path, {"meta": {"q": "p"}, "b": 1}, name="1.jsonl"), written(tmp_path, {"q": "r", "b": 2}, name="2.jsonl")
    (tmp_path / "menu.yaml").write_text("defaults:\n  - feedback_source: []\n")
    overrides = [
        "feedback_source=[jsonl]",
        f"feedback_source.jsonl.path=[{one},{two}]",
        "feedback_source.jsonl.weight=[1,0.25]",
        "feedback_source.jsonl.name=mixed",
        "feedback_source.jsonl.rename={meta.q:prompt,q:prompt}",
        "feedback_source.jsonl.ignore_fields=[b]",
    ]
    with initialize_config_dir(str(tmp_path), version_base=None):
        config = compose("menu", overrides=overrides)
    rows = list(build(config.feedback_source.jsonl)())
    assert [(row.data, row.weight, row.source, row.origin) for row in rows] == [
        ({"prompt": "p"}, 1.0, "mixed", f"{one}:1"),
        ({"prompt": "r"}, 0.25, "mixed", f"{two}:1"),
    ]
    config.feedback_source.jsonl.weight = [1, -1]
    with pytest.raises(ConfigError, match=r"feedback_source\.weight"):
        build(config.feedback_source.jsonl)


def test_weight_and_name_reach_the_feedback(tmp_path: Path) -> None:
    record = Feedback(prompt="p", responses=("r",), judgement=Rating(value=1, scale=(0, 2)), weight=0.5)
    (tmp_path / "f").write_text(record.model_dump_json() + "\n" + record.model_copy(update={"source": "own"}).model_dump_json())
    read = read_feedback(jsonl.jsonl(path=str(tmp_path / "f"), weight=0.5, name="set"), [RecordFormat()]).feedback
    assert [(r.weight, r.source) for r in read] == [(0.25, "set"), (0.25, "own")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": ()}, "at least one path"),
        ({"path": ("a", "")}, "none may be empty"),
        ({"path": ("a", "b", "a")}, "names a path twice"),
        ({"path": ("a", "b"), "weight": (1.0,)}, "1 weights for 2 paths"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        jsonl.jsonl(**settings)


def test_the_limit_is_of_all_paths_and_before_rows_are_taken_apart(tmp_path: Path) -> None:
    paths = tuple(written(tmp_path, *({"a": [i, 10 + i]} for i in range(2)), name=f"{n}.jsonl") for n in range(3))
    assert [row["a"] for row in data(paths, limit=3, explode=("a",))] == [0, 10, 1, 11, 0, 10]
    assert len(read(paths, limit=100)) == 6


def test_rename_moves_a_field_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, {"a": 1, "b": {"c": 2, "d": [3]}, "x.y": 4}, {"a": 5})
    assert data(path, rename={"a": "b2", "b.c": "a", "x.y": "z"}) == [{"b": {"d": [3]}, "b2": 1, "a": 2, "z": 4}, {"b2": 5}]
    assert data(written(tmp_path, {"a": 1, "b": 2}), rename={"a": "b", "b": "a"}) == [{"a": 2, "b": 1}]


def test_rename_that_loses_or_finds_nothing_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "q", "prompt": "p"})
    assert reason(path, rename={"question": "prompt"}) == ("bad", "field 'question' can't be renamed to 'prompt': the row has that already")
    assert data(path, rename={"question": "prompt"}, ignore_fields=("prompt",)) == [{"prompt": "q"}]
    assert "renamed to 'x'" in reason(path, rename={"question": "x", "prompt": "x"})[1]
    assert reason(path, rename={"qestion": "x"}) == (
        "fatal",
        "feedback_source.NAME.rename: no row has the field 'qestion', did you mean 'question'?",
    )
    (tmp_path / "bad").write_text("{\n")
    assert reason(str(tmp_path / "bad"), rename={"a": "x"})[0] == "bad"


def test_each_item_becomes_a_row(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "p",
            "rs": [{"text": "a", "reviews": [{"rank": 1}, {"rank": 2}]}, {"text": "b", "reviews": [{"rank": 3}]}],
            "m": {"k": 1},
        },
        {"prompt": "q", "rs": [{"text": "c", "reviews": []}], "m": {"k": 2}},
    ]
    path = written(tmp_path, *rows)
    *items, note = read(path, explode=("rs", "rs.reviews"), rename={"rs.reviews.rank": "rating", "m.k": "k"})
    brute = [
        {"prompt": row["prompt"], "rs": {"text": r["text"]}, "rating": review["rank"], "k": row["m"]["k"]}
        for row in rows
        for r in row["rs"]
        for review in r["reviews"]
    ]
    assert [item.data for item in items if isinstance(item, Row)] == brute
    assert [item.origin for item in items] == [f"{path}:1"] * 3
    assert isinstance(note, BadLine)
    assert (note.verdict, note.reason) == ("allowed", "1 rows have an empty list in ['rs', 'rs.reviews'] and make no row")


def test_parts_are_read_by_a_format_as_rows_are(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "p", "rs": [{"text": "a", "score": 1}, {"text": "b", "score": 2}]})
    form = RatingFormat(response="rs.text", rating="rs.score", scale=(0, 2))
    feedback = read_feedback(jsonl.jsonl(path=path, explode=("rs",)), [form]).feedback
    assert [(f.responses, f.judgement.value) for f in feedback if isinstance(f.judgement, Rating)] == [(("a",), 1.0), (("b",), 2.0)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"rs": {"a": 1}}, "rs must be a list, of which each item is to be a row, not an object"),
        ({"rs": None}, "not null"),
        ({"rz": []}, "field 'rs', of which each item is to be a row, is missing"),
        ({"rs": [{"x": [1]}, {"x": 5}]}, "rs.x must be a list"),
        ({"rs": [{"x": [1]}, {}]}, "field 'rs.x', of which"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused_as_a_whole(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    items = read(written(tmp_path, row), explode=("rs", "rs.x"))
    assert len(items) == 1
    assert isinstance(items[0], BadLine)
    assert words in items[0].reason
    assert json.loads(items[0].raw) == row


def test_a_row_that_was_changed_is_not_read_from_its_bytes(tmp_path: Path) -> None:
    record = Feedback(prompt="p", responses=("r",), judgement=Rating(value=1, scale=(0, 2)), annotator="anna", origin="x:1")
    path = written(tmp_path, record.model_dump(mode="json"))
    (same,) = read_feedback(jsonl.jsonl(path=path), [RecordFormat()]).feedback
    assert same == record
    (changed,) = read_feedback(jsonl.jsonl(path=path, ignore_fields=("annotator", "origin")), [RecordFormat()]).feedback
    assert changed == record.model_copy(update={"annotator": None, "origin": f"{path}:1"})
    with pytest.raises(DataError, match="judgement"):
        read_feedback(jsonl.jsonl(path=path, rename={"judgement": "verdict"}), [RecordFormat()])
