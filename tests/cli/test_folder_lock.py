"""One command at a time in a folder, whatever its stage, also a sweep; and nothing of the lock stays."""

from __future__ import annotations

import os

import pytest

from rlhf_lightning.checkpoint.lock import lock_folder


@pytest.mark.parametrize("stage", ["inspect", "sft", "ppo"])
def test_a_folder_in_use_is_refused_before_anything_is_written(command, world, tmp_path, stage):
    with lock_folder(tmp_path):
        refused = command(*getattr(world, stage)(), folder=tmp_path)
        assert refused.code == 2
        assert f"is in use: process {os.getpid()} on" in refused.error
        assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_s_folder_is_refused_too(command, world, tmp_path):
    with lock_folder(tmp_path):
        refused = command("-m", *world.inspect("seed=1,2"), folder=tmp_path)
        assert refused.code == 2
        assert "is in use" in refused.error
        assert [path.name for path in tmp_path.iterdir()] == ["lock.json"]


def test_a_lock_that_a_dead_process_left_holds_nobody_up_and_goes(command, world, tmp_path):
    (tmp_path / "lock.json").write_text('{"pid": 1, "host": "gone"}')
    assert command(*world.inspect(), folder=tmp_path).code == 0
    assert not (tmp_path / "lock.json").exists()
    assert command(*world.inspect("feedback_source.jsonl.path=nowhere.jsonl"), folder=tmp_path).code != 0
    assert not (tmp_path / "lock.json").exists()
