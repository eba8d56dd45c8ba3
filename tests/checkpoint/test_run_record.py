"""What a run was begun with, and what may differ when it goes on."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.checkpoint import run_record
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
