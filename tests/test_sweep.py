"""A sweep in a process of its own: every job runs, one table at the end, and a job that fails is named."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.sweep import ERROR_FILE, SweepTable, job_row

ROOT = Path(__file__).resolve().parents[1]


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "220", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, f"hydra.sweep.dir={folder}"]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=300, env=env)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as handle:
        return list(csv.DictReader(handle))


def test_every_job_is_a_row(world, tmp_path):
    folder = tmp_path / "sweep"
    done = sweep(folder, *world.ppo("advantage=gae,rloo", "seed=1,2"))
    assert done.returncode == 0, done.stderr
    rows = rows_of(folder)
    chosen = [(row["job"], row["advantage"], row["seed"]) for row in rows]
    assert chosen == [("0", "gae", "1"), ("1", "gae", "2"), ("2", "rloo", "1"), ("3", "rloo", "2")]
    for row in rows:
        result = json.loads((folder / row["job"] / "result.json").read_text())
        assert float(row["objective"]) == result["objective"]
        assert float(row["kl"]) == result["figures"]["kl"]
        assert float(row["seconds"]) > 0
        assert (folder / row["job"] / "policy" / "model.safetensors").is_file()
    assert rows[0]["objective"] != rows[1]["objective"]
    assert "4 jobs" in done.stdout
    assert "failed" not in done.stdout
    assert str(folder / "sweep.csv") in done.stdout


def test_a_job_that_fails_is_named_and_the_others_run(world, command):
    done = command("-m", *world.sft("sft.max_length=2,64"))
    assert done.code == 1
    first, second = rows_of(done.folder)
    assert first["objective"] == "failed"
    assert "demonstrations fits 2 tokens" in first["error"]
    assert float(second["objective"]) > 0
    assert "2 jobs, 1 failed" in done.out
    assert "job 0 failed: none of 6 demonstrations fits 2 tokens" in done.out
    assert "Traceback" not in done.error


@pytest.fixture
def jobs(tmp_path) -> Path:
    """Twelve jobs: the third failed, the fifth was killed before it wrote anything."""
    for number in range(12):
        job = tmp_path / str(number)
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"- +seed={number}\n- a.b=[1,2]\n")
        if number == 3:
            (job / ERROR_FILE).write_text("RuntimeError: out of [memory]")
        elif number != 5:
            content = {"objective": number / 10, "figures": {"kl": 0.5}, "seconds": {"sft": 1.0, "ppo": 2.0}}
            (job / "result.json").write_text(json.dumps(content))
    (tmp_path / "no_job").mkdir()
    return tmp_path


def test_rows_come_in_the_jobs_order_and_say_what_failed(jobs, capsys):
    SweepTable.failed = 0
    SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(jobs)}}}))
    rows = rows_of(jobs)
    assert [row["job"] for row in rows] == [str(number) for number in range(12)]
    assert [row["seed"] for row in rows] == [str(number) for number in range(12)]
    assert rows[3]["objective"] == rows[5]["objective"] == "failed"
    assert (rows[3]["error"], rows[5]["error"]) == ("RuntimeError: out of [memory]", "no result was written")
    assert SweepTable.failed == 2
    out = capsys.readouterr().out
    assert "12 jobs, 2 failed" in out
    assert "job 3 failed: RuntimeError: out of [memory]" in out


def test_a_row_holds_overrides_and_results(jobs):
    assert job_row(jobs / "4") == {"job": "4", "seed": "4", "a.b": "[1,2]", "objective": 0.4, "kl": 0.5, "seconds": 3.0}


def test_a_sweep_without_jobs_writes_nothing(tmp_path):
    SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert not (tmp_path / "sweep.csv").exists()


def test_a_traceback_in_a_job_is_told_and_counted(world, command, monkeypatch):
    """An error that isn't the user's, in this process: the job's folder says which, and the exit code is 1."""
    import rlhf_lightning.sft.module as sft

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(sft.SFTModule, "training_step", broken)
    outcome = command("-m", *world.sft("seed=1,2"))
    assert outcome.code == 1
    assert outcome.error.count("RuntimeError: a bug") >= 2
    assert (outcome.folder / "1" / ERROR_FILE).read_text() == "RuntimeError: a bug"
    assert "2 jobs, 2 failed" in outcome.out
