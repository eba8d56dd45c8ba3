"""The seconds of a run's stages are those of all of its attempts together."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from rlhf_lightning.runtime import stopwatch
from rlhf_lightning.runtime.stopwatch import FILE, Stopwatch, read_seconds


def test_attempts_are_summed_whatever_ended_them(tmp_path, monkeypatch):
    monkeypatch.setattr(stopwatch, "PERIOD", 0.02)
    child = os.fork()
    if child == 0:  # killed within its second stage
        watch = Stopwatch()
        with watch.record(tmp_path):
            with watch.measure("read"):
                time.sleep(0.1)
            with watch.measure("sft"):
                time.sleep(60)
    while read_seconds(tmp_path).get("sft", 0) < 0.2:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    killed = read_seconds(tmp_path)
    with pytest.raises(SystemExit):  # as a signal ends it
        resume_for(tmp_path, 0.1, SystemExit)
    stopped = read_seconds(tmp_path)
    assert killed["read"] >= 0.1
    assert stopped["sft"] >= killed["sft"] + 0.1
    assert resume_for(tmp_path, 0.1) >= stopped["sft"] + 0.1
    assert [path.name for path in tmp_path.iterdir() if path.name != FILE and "seconds" not in path.name] == []


def resume_for(folder, seconds, error=None):
    watch = Stopwatch()
    with watch.record(folder), watch.measure("sft"):
        time.sleep(seconds)
        if error:
            raise error
    return watch.seconds["sft"]


@pytest.mark.parametrize("content", [None, "", "[1]", '{"sft": "x"}', "null"])
def test_a_file_that_cannot_be_read_counts_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_text(content)
    assert read_seconds(tmp_path) == {}


def test_a_disk_that_takes_nothing_costs_the_count_alone(tmp_path):
    with Stopwatch().record(tmp_path / "nowhere"):
        pass


def test_a_resumed_run_s_result_and_report_have_the_sum(command, world, tmp_path):
    outcome = command(*world.inspect(), folder=tmp_path)
    assert outcome.code == 0, outcome.error
    assert not (tmp_path / FILE).exists()
    (tmp_path / "result.json").unlink()
    (tmp_path / FILE).write_text(json.dumps({"measure": 100.0, "earlier": 7.0}))
    resumed = command(f"resume={tmp_path}")
    assert resumed.code == 0, resumed.error
    seconds = json.loads((tmp_path / "result.json").read_text())["seconds"]
    assert 100 < seconds["measure"] < 160
    assert seconds["earlier"] == 7
    shown = {entry["stage"]: entry["seconds"] for entry in json.loads((tmp_path / "report.json").read_text())["seconds"]}
    assert shown["measure"] > 100
    assert not (tmp_path / FILE).exists()
