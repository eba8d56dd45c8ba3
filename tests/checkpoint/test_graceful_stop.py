"""At a signal the step is finished, a checkpoint stands, the exit code is a shell's, all processes stop together; a second ends at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from rlhf_lightning.checkpoint.store import CheckpointStore
from tests.fork_server import ForkedPopen, run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("trainings.py")


def started(*words: Any, **env: str) -> subprocess.Popen[str]:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return ForkedPopen(command, spares=1, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_within_a_step_ends_the_training_after_it(trainings, uninterrupted, tmp_path, number, code):
    said: list[str] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    with pytest.raises(SystemExit) as stop:
        trainings.trained("reward", tmp_path, trainings.Kills(2, number), every=99, log=said.append)
    assert stop.value.code == code
    assert said == [f"stopped by {number.name} after step 2 of 6; its checkpoint is in {tmp_path}"]
    newest = CheckpointStore(tmp_path).newest()
    assert newest is not None
    assert newest.step == 2
    assert {each: signal.getsignal(each) for each in before} == before, "the handlers of before are back"
    assert trainings.trained("reward", tmp_path) == uninterrupted("reward").left


def test_a_second_signal_ends_the_process_at_once_and_the_checkpoint_before_stands(tmp_path):
    """Its repetition within a second is the same signal: launchers send it on."""
    script = (
        "import os, signal, sys, time\n"
        "from rlhf_lightning.checkpoint.graceful_stop import StopSignal\n"
        "stop = StopSignal()\n"
        "signal.signal(signal.SIGTERM, stop._record)\n"
        "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('goes on', stop.number, flush=True)\n"
        "time.sleep(1.2)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('never')\n"
    )
    done = run([sys.executable, "-c", script], timeout=120)
    assert (done.returncode, done.stdout) == (143, "goes on 15\n"), done.stderr


class Slurm(L.Callback):
    """Pretends to be a job of SLURM whose signal comes in a step."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_slurm_queues_the_job_again_by_lightning_s_plugin(trainings, uninterrupted, tmp_path, monkeypatch):
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    called = tmp_path / "called"
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $@ > {called}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "checkpoints"
    with pytest.raises(SystemExit) as stop:
        trainings.trained("sft", folder, Slurm(), every=99, plugins=[SLURMEnvironment()], default_root_dir=tmp_path)
    assert stop.value.code == 138
    assert called.read_text() == "requeue 77\n"
    assert not list(tmp_path.glob("hpc_ckpt*")), "our checkpoint is the only one"
    newest = CheckpointStore(folder).newest()
    assert newest is not None
    assert newest.step == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[dict[str, str]]:
    """What two processes leave that nobody stops."""
    left = hashes(started("sft", tmp_path_factory.mktemp("whole"), "--devices", 2))
    assert len(left) == 2
    assert left[0]["random"] != left[1]["random"]
    assert left[0]["weights"] == left[1]["weights"]
    return left


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "step"), [(0, 3), (1, 2)], ids=["first, where an epoch ends", "second, in an epoch"])
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(whole, tmp_path, rank, step):
    begun = time.monotonic()
    stopped = started("sft", tmp_path / "stopped", "--devices", 2, "--every", 99, "--signal", step, int(signal.SIGTERM), rank)
    out, error = stopped.communicate(timeout=120)
    assert stopped.returncode == 143, error
    assert time.monotonic() - begun < 110, "neither waits for the other"
    assert out.count(f"stopped by SIGTERM after step {step}") == 1, out + error
    newest = CheckpointStore(tmp_path / "stopped").newest()
    assert newest is not None
    assert (newest.step, newest.metadata["processes"]) == (step, 2)
    if rank == 0:
        alone = started("sft", tmp_path / "stopped", "--devices", 1)
        assert "is of 2 processes" in alone.communicate(timeout=120)[1]
    assert hashes(started("sft", tmp_path / "stopped", "--devices", 2)) == whole


def hashes(process: subprocess.Popen[str]) -> list[dict[str, str]]:
    """What each process left, in an order that doesn't depend on who ended first."""
    out, error = process.communicate(timeout=180)
    assert process.returncode == 0, error
    return [json.loads(line) for line in sorted(out.splitlines()) if line.startswith("{")]
