"""Whole sweeps: every launcher and sweeper runs every job, a job that fails is named, and a sweep that was killed goes on."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf_lightning.cli.sweep.jobs import ERROR_FILE
from tests.fork_server import ForkedPopen

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = '''
from rlhf_lightning.registry import register


@register("stage", "of_this_folder")
def of_this_folder(run, *, scale: float = 1.0):
    """A stage without a training, which would load the libraries of one in each process."""
    run.log(f"scale {scale}")
    return scale
'''


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own, from the folder beside the sweep's."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "220", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, f"hydra.sweep.dir={folder}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return ForkedPopen(command, spares=2, nested=1, cwd=folder.parent, env=env, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_every_job_is_a_row(world, tmp_path):
    folder = tmp_path / "sweep"
    code, out, error = ended(started(folder, *world.ppo("advantage=gae,rloo", "seed=1,2")))
    assert code == 0, error
    rows = rows_of(folder)
    chosen = [(row["job"], row["advantage"], row["seed"]) for row in rows]
    assert chosen == [("0", "gae", "1"), ("1", "gae", "2"), ("2", "rloo", "1"), ("3", "rloo", "2")]
    for row in rows:
        result = json.loads((folder / row["job"] / "result.json").read_text())
        assert float(row["objective"]) == result["objective"]
        assert float(row["kl"]) == result["metrics"]["kl"]
        assert float(row["seconds"]) > 0
        assert (folder / row["job"] / "policy" / "model.safetensors").is_file()
    assert rows[0]["objective"] != rows[1]["objective"]
    assert "4 jobs; means over seeds" in out
    assert "failed" not in out
    assert str(folder / "sweep.html") in out
    assert (folder / "sweep.html").read_text().count('class="dot') == 4
    assert [file.name for file in tmp_path.iterdir()] == ["sweep"], "a sweep writes nothing outside its folder"


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["joblib", "hydra.launcher.n_jobs=2"], id="joblib"),
        pytest.param(["submitit_local"], id="submitit"),
    ],
)
def test_jobs_in_other_processes_have_the_plugins_of_the_folder(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher[0].removesuffix('_local')}_launcher")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "own.py").write_text(PLUGIN)
    words = ["stage=of_this_folder", "stage.scale=0.5,-1.0", "logger=none", f"hydra/launcher={launcher[0]}", *launcher[1:]]
    folder = tmp_path / "sweep"
    code, out, error = ended(started(folder, *words))
    assert code == 0, error
    assert [(row["stage.scale"], float(row["objective"])) for row in rows_of(folder)] == [("0.5", 0.5), ("-1.0", -1.0)]
    assert "2 jobs" in out
    if launcher[0] == "joblib":
        assert all(f"[job {number}] scale " in out for number in (0, 1)), "the lines of jobs that run together name their job"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plugins", "sweep"]


def test_a_job_that_fails_is_named_and_the_others_run(world, command):
    done = command("-m", *world.sft("sft.max_length=2,64"))
    assert done.code == 1
    first, second = rows_of(done.folder)
    assert first["objective"] == "failed"
    assert "fits 2 tokens" in first["error"]
    assert float(second["objective"]) > 0
    assert "2 jobs, 1 failed" in done.out
    assert "job 0 failed: none of 6 demonstrations fits 2 tokens" in done.out
    assert "Traceback" not in done.error
    again = command("-m", *world.sft("sft.max_length=2,64"), folder=done.folder)
    assert again.code == 1
    assert "sft  " not in again.out, "the job that ended well is not run again"


def test_a_traceback_in_a_job_is_reported_and_counted(world, command, monkeypatch):
    """An error that isn't the user's, in this process: the job's folder says which, and the exit code is 1."""
    import rlhf_lightning.sft.module as sft

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(sft.SFTModule, "training_step", broken)
        outcome = command("-m", *world.sft("seed=1,2"))
    assert outcome.code == 1
    assert outcome.error.count("RuntimeError: a bug") >= 2
    assert (outcome.folder / "1" / ERROR_FILE).read_text() == "RuntimeError: a bug"
    assert "2 jobs, 2 failed" in outcome.out
    mended = command("-m", *world.sft("seed=1,2"), folder=outcome.folder)
    assert mended.code == 0, mended.error
    assert not (outcome.folder / "1" / ERROR_FILE).exists()
    assert [row["objective"] for row in rows_of(outcome.folder)] != ["failed", "failed"]
    other = command("-m", *world.sft("seed=1,3"), folder=outcome.folder)
    assert other.code == 2
    assert "has the jobs of another sweep (there: seed=1,2; here: seed=1,3)" in other.error


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_jobs_that_are_missing(world, tmp_path):
    folder = tmp_path / "sweep"
    words = world.sft("seed=1,2,3", "sft.epochs=15", "task.test_fraction=0.2")
    process = started(folder, *words)
    start = time.monotonic()
    while not (folder / "1" / "config.yaml").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - start < 120
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {job: (folder / job / "result.json").stat().st_mtime_ns for job in "012" if (folder / job / "result.json").exists()}
    assert "0" in finished
    assert "2" not in finished
    code, out, error = ended(started(folder, *words))
    assert code == 0, error
    assert {job: (folder / job / "result.json").stat().st_mtime_ns for job in finished} == finished
    assert [row["seed"] for row in rows_of(folder) if float(row["objective"]) > 0] == ["1", "2", "3"]
    assert "3 jobs; means over seeds" in out


def test_a_study_that_was_interrupted_goes_on(world, command, monkeypatch):
    """hparams=ppo_search chooses Optuna; the second job is interrupted, and the same command runs it and the third."""
    pytest.importorskip("optuna")
    import rlhf_lightning.sft.module as sft

    step = sft.SFTModule.training_step
    words = world.sft("hparams=ppo_search", "hydra.sweeper.n_trials=3", "hydra.sweeper.storage=sqlite", "hydra.sweeper.direction=minimize")

    def interrupted(self, *arguments):
        if (folder / "1").exists():
            raise KeyboardInterrupt
        return step(self, *arguments)

    folder = world.files / "study"
    with monkeypatch.context() as patch:
        patch.setattr(sft.SFTModule, "training_step", interrupted)
        stopped = command("-m", *words, folder=folder)
    assert stopped.code != 0
    assert f"to resume it: the same command with hydra.sweep.dir={folder}" in stopped.error
    before = (folder / "0" / "result.json").stat().st_mtime_ns
    asked = (folder / "1" / ".hydra" / "overrides.yaml").read_text()
    assert not (folder / "1" / "result.json").exists()
    done = command("-m", *words, folder=folder)
    assert done.code == 0, done.error
    assert (folder / "0" / "result.json").stat().st_mtime_ns == before
    assert (folder / "1" / ".hydra" / "overrides.yaml").read_text() == asked
    rows = rows_of(folder)
    best = min(rows, key=lambda row: float(row["objective"]))
    assert re.search(rf"best: job {best['job']}, objective \S+: .*ppo.epochs=[1-4] policy_kl_control.coef=\S+", done.out)
    assert sorted(file.name for file in folder.iterdir()) == ["0", "1", "2", "multirun.yaml", "study.db", "sweep.csv", "sweep.html"]
