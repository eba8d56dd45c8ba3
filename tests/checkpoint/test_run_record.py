"""What a run was begun with, and what may differ when it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlhf_lightning.checkpoint import run_record
from rlhf_lightning.checkpoint import run_record as module
from rlhf_lightning.checkpoint.run_record import changed_inputs, digest, input_digests
from rlhf_lightning.errors import DataError


def config(**changes):
    made = OmegaConf.create(
        {
            "seed": 3,
            "trainer": {"devices": 1},
            "logger": {"kind": "wandb", "api_key": "hidden"},
            "task": {"prompts": "p.jsonl", "seed": "${seed}"},
        }
    )
    for name, value in changes.items():
        OmegaConf.update(made, name.replace("__", "."), value)
    return made


def test_a_record_is_read_as_it_was_written_without_secrets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text("{}\n")
    (tmp_path / "run").mkdir()
    run_record.write(config(), tmp_path / "run", ["p.jsonl"])
    record = run_record.read(tmp_path / "run")
    assert record is not None
    assert record["settings"] == run_record.flat_settings(config())
    assert list(record["inputs"]) == ["p.jsonl"]
    text = (tmp_path / "run" / run_record.FILE).read_text()
    assert "hidden" not in text
    assert json.loads(text)["versions"]["torch"]


def test_differences_are_named_by_their_settings():
    before, now = run_record.flat_settings(config()), run_record.flat_settings(config(seed=4, trainer__devices=2, task__more=[1]))
    assert run_record.differences(before, now) == {"seed": "3 -> 4", "trainer.devices": "1 -> 2", "task.more": "(not set) -> [1]"}
    assert run_record.differences(now, before)["task.more"] == "[1] -> (not set)"
    assert run_record.differences(before, before) == {}
    assert [name for name in run_record.differences(before, now) if run_record.may_change(name)] == ["trainer.devices"]


def test_there_may_be_no_record_but_not_a_broken_one(tmp_path):
    assert run_record.read(tmp_path) is None
    (tmp_path / run_record.FILE).write_text('{"settings": {}}')
    with pytest.raises(DataError, match=r"begun.json can't be read \(KeyError"):
        run_record.read(tmp_path)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder to work in with a file, a folder of a model with a subfolder, and the folder of a run."""
    (tmp_path / "model" / "data").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    for name in (
        "pairs.jsonl",
        "model/config.json",
        "model/weights.safetensors",
        "model/data/train.parquet",
        "model/.cache",
        "run/feedback.jsonl",
    ):
        (tmp_path / name).write_text(f"content of {name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_folders_and_patterns_are_digested_and_the_run_s_own_are_not(there):
    paths = ["pairs.jsonl", "gone.jsonl", "model", str(there / "model"), "pairs.*", "gpt2", "run/feedback.jsonl", "run"]
    found = input_digests(paths, there / "run")
    assert list(found) == sorted(["pairs.jsonl", "model", str(there / "model"), "pairs.*"])
    assert changed_inputs(found, there / "run") == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda top: (top / "pairs.jsonl").write_text("Content of pairs.jsonl\n"), ["pairs.jsonl was modified"]),
        (lambda top: (top / "pairs.jsonl").unlink(), ["pairs.jsonl is missing"]),
        (lambda top: (top / "model" / "config.json").rename(top / "model" / "other.json"), ["model was modified"]),
        (lambda top: (top / "model" / "data" / "train.parquet").write_text(""), ["model was modified"]),
        (lambda top: (top / "model" / "new").write_text(""), ["model was modified"]),
        (lambda top: (top / "model" / ".hidden").write_text(""), []),
        (lambda top: (top / "pairs.jsonl").touch(), []),
    ],
    ids=["a letter", "gone", "renamed", "emptied below", "one more", "hidden", "only touched"],
)
def test_a_changed_input_is_named(there, change, told):
    found = input_digests(["pairs.jsonl", "model"], there / "run")
    change(there)
    assert changed_inputs(found, there / "run") == told


def test_a_folder_that_holds_runs_is_not_changed_by_them(there):
    found = input_digests(["./"], there / "run")
    (there / "run" / "more").write_text("")
    (there / "runs" / "other").mkdir(parents=True)
    for name in ("begun.json", "result.json"):
        (there / "runs" / "other" / name).write_text("{}")
    assert changed_inputs(found, there / "run") == []
    (there / "new.jsonl").write_text("")
    assert changed_inputs(found, there / "run") == ["./ was modified"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=40), data=st.data())
def test_every_byte_of_what_is_read_whole_counts(tmp_path, content, data):
    file = tmp_path / "file"
    file.write_bytes(content)
    before = digest({"": file})
    place = data.draw(st.integers(0, len(content) - 1))
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert digest({"": file}) != before
    file.write_bytes(content)
    assert digest({"": file}) == before


def test_of_a_large_file_length_ends_and_spread_pieces_count(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 10)
    monkeypatch.setattr(module, "BUDGET", 50)
    file = tmp_path / "file"
    whole = bytes(range(200))

    def after(at: int) -> str:
        file.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        return digest({"": file})

    file.write_bytes(whole)
    before = digest({"": file})
    read = {at for at in range(199) if after(at) != before}
    assert len(read) == 49, "five pieces of ten, less the last byte, which was 0xff's neighbour"
    assert {0, 198} <= read
    file.write_bytes(whole + b"\0")
    assert digest({"": file}) != before


def test_the_pieces_of_two_files_share_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 10)
    monkeypatch.setattr(module, "BUDGET", 40)
    files: dict[str, Path] = {}
    for name in "ab":
        files[name] = tmp_path / name
        files[name].write_bytes(bytes(100))
    before = digest(files)
    files["b"].write_bytes(bytes(50) + b"x" + bytes(49))
    assert digest(files) == before, "the middle isn't looked at"
    files["b"].write_bytes(bytes(99) + b"x")
    assert digest(files) != before
