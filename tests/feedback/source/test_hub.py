"""Data sets of the datasets library, made and read in a folder; nothing is downloaded."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.format.record import RecordFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source.hub import hub
from rlhf_lightning.flow import Feedback, Message, Ranking

datasets = pytest.importorskip("datasets")
PAIRS = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad", "margin": i / 2} for i in range(2500)]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and no cache but the test's own."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def read(path: Any, **settings: Any) -> list[Row | BadLine]:
    return list(hub(path=str(path), **settings))


def stored(folder: Path, rows: list[dict[str, Any]], way: str) -> Path:
    # The library takes the columns of the first row for all there are.
    names = dict.fromkeys(name for row in rows for name in row)
    made = datasets.Dataset.from_list([{name: row.get(name) for name in names} for row in rows])
    place = folder / way
    if way == "parquet":
        place.mkdir()
        made.to_parquet(place / "train-00000-of-00001.parquet")
    elif way == "file.parquet":
        made.to_parquet(place)
    else:
        (made if way == "dataset" else datasets.DatasetDict(train=made, test=made.select([0]))).save_to_disk(place)
    return place


@pytest.mark.parametrize("way", ["dataset", "dict", "parquet", "file.parquet"])
def test_rows_come_back_in_order_with_their_number(way: str, tmp_path: Path) -> None:
    place = stored(tmp_path, PAIRS, way)
    rows = read(place)
    assert [row.data for row in rows if isinstance(row, Row)] == PAIRS
    assert [row.origin for row in rows[:2]] == [f"{place}/train:1", f"{place}/train:2"]
    assert rows[-1].origin == f"{place}/train:2500"
    feedback = read_feedback(hub(path=str(place), limit=3, weight=0.5, name="set"), [PairwiseFormat()]).feedback
    assert [(f.prompt, f.weight, f.source) for f in feedback] == [(f"p{i}", 0.5, "set") for i in range(3)]
    assert list(tmp_path.glob("cache/**/*.arrow")) == []


def test_what_the_library_fills_in_reads_as_absent(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": {"c": "x"}, "l": [{"u": 1}, {"v": None, "w": "y"}]}, {"d": "z", "l": [None]}]
    found = read(stored(tmp_path, rows, "dataset"))
    assert [row.data for row in found if isinstance(row, Row)] == [
        {"a": 1, "b": {"c": "x"}, "l": [{"u": 1}, {"w": "y"}]},
        {"l": [None], "d": "z"},
    ]
    assert all(json.loads(row.raw) == row.data for row in found if isinstance(row, Row))


def test_dates_become_text_and_what_json_has_not_is_refused(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    rows = [
        {"t": moment, "d": datetime.date(2024, 5, 6)},
        {"x": float("nan")},
        {"n": {"x": [1.0, float("inf")]}},
        {"b": b"bytes"},
        {"s": "a\x00b"},
        {"t": moment},
    ]
    first, *bad, last = read(stored(tmp_path, rows, "dataset"))
    assert isinstance(first, Row)
    assert datetime.datetime.fromisoformat(first.data["t"]) == moment
    assert first.data["d"] == "2024-05-06"
    reasons = [(line.verdict, line.reason) for line in bad if isinstance(line, BadLine)]
    assert [verdict for verdict, _ in reasons] == ["bad"] * 4
    for (_, reason), words in zip(reasons, ["x is nan", "n.x[1] is inf", "b is of type bytes", "'s' holds a NUL"], strict=True):
        assert words in reason
    assert json.loads(bad[1].raw)["n"]["x"][0] == 1.0
    assert isinstance(last, Row)


def test_the_project_s_records_survive_the_library(tmp_path: Path) -> None:
    records = [
        Feedback(prompt="p", responses=("a", "b"), judgement=Ranking(ranks=(0, 1), margin=1.5), annotator="x", origin="f:1"),
        Feedback(prompt="q", responses=("c", "d"), judgement=Ranking(ranks=(0, 0)), models=("m", "n"), origin="f:2"),
    ]
    place = stored(tmp_path, [record.model_dump(mode="json") for record in records], "parquet")
    assert read_feedback(hub(path=str(place)), [RecordFormat()]).feedback == records
    chat = Feedback(prompt=(Message(role="user", content="hi"),), responses=("a", "b"), judgement=Ranking(ranks=(1, 0)), origin="f:3")
    place = stored(tmp_path, [chat.model_dump(mode="json")], "dataset")
    assert read_feedback(hub(path=str(place)), [RecordFormat()]).feedback == [chat]


@pytest.mark.parametrize("name", ["a.jsonl", "sub/a.json", "a.csv", "a.txt.gz"])
def test_text_files_are_left_to_the_strict_sources(name: str, tmp_path: Path) -> None:
    place = stored(tmp_path, PAIRS[:2], "parquet")
    (place / "README.md").write_text("# a card")
    assert len(read(place)) == 2
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text('{"a":1}')
    with pytest.raises(DataError, match=r"is no Parquet file.*use feedback_source=jsonl, json or csv"):
        read(place)
    with pytest.raises(DataError, match="is no Parquet file"):
        read(place / name)


def test_what_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, parts = stored(tmp_path, PAIRS[:2], "parquet"), stored(tmp_path, PAIRS[:2], "dict")
    (tmp_path / "none").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + b"x" * 50 + b"PAR1")
    for path, settings, words in (
        (place, {"split": "tset"}, "split 'tset'.*'train'"),
        (parts, {"split": "tset"}, "no split 'tset'; there are: train, test"),
        (tmp_path / "none", {}, "holds no Parquet files"),
        (tmp_path / "nothing", {}, "no such folder"),
        (tmp_path / "broken.parquet", {}, "broken.parquet"),
        ("no/such", {}, "can't be loaded: ConnectionError"),
        ("https://example.org/x", {}, "can't be loaded"),
        ("nul\x00byte", {}, "can't be loaded"),
    ):
        with pytest.raises(DataError, match=words):
            read(path, **settings)
    with pytest.raises(ConfigError, match="has no config or revision"):
        read(place, revision="main")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlhf-lightning\[hub\]'"):
        read(place)


def test_a_split_saved_alone_keeps_its_name(tmp_path: Path) -> None:
    part = tmp_path / "part"
    datasets.Dataset.from_list(PAIRS[:2], split="test").save_to_disk(part)
    assert len(read(part, split="test")) == 2
    with pytest.raises(DataError, match=r"is the split 'test', not 'train': add feedback_source\.hub\.split=test"):
        read(part)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"a": []}).to_parquet(tmp_path / "empty.parquet")
    (line,) = read(tmp_path / "empty.parquet")
    assert (getattr(line, "verdict", ""), getattr(line, "reason", "")) == ("fatal", "no rows: the split is empty")


@pytest.mark.parametrize("streaming", [False, True])
def test_names_go_to_the_hub_and_text_files_there_are_reported(streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt":"p","chosen":"a","rejected":"b"}\n')
    real, asked = datasets.load_dataset, list[tuple[Any, ...]]()

    def load(path: str, **settings: Any) -> Any:
        asked.append((path, settings))
        return real("json", data_files={"test": str(tmp_path / "x.jsonl")}, split="test", streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load)
    note, row = read("some/pairs", split="test", config="c", revision="r", streaming=streaming)
    assert asked == [("some/pairs", {"name": "c", "split": "test", "revision": "r", "streaming": streaming})]
    assert isinstance(note, BadLine)
    assert note.verdict == "allowed"
    assert "consists of text files" in note.reason
    assert isinstance(row, Row)
    assert (row.origin, row.data["prompt"]) == ("some/pairs/test:1", "p")
