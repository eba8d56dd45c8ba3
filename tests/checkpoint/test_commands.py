"""Whole commands that are killed, refused or started again: one run in a folder, no orphans, and the end is that of a run left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf_lightning.config.overrides import quote_value
from tests.fork_server import ForkedPopen

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = '''
"""Sends this process a signal, once, in the second epoch or after the training: KILL=PLACE:RANK:SIGNAL."""
import os
from pathlib import Path

from rlhf_lightning.training.distributed import DistributedBatchSampler
from rlhf_lightning.runtime.run import Run

PLACE, RANK, NUMBER = os.environ.get("KILL", "nowhere:0:0").split(":")
EVERY_BATCH, SAVE = DistributedBatchSampler.__iter__, Run.save


def strike(place, rank):
    mark = Path("struck")
    if place == PLACE and rank == int(RANK) and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), int(NUMBER))


def batches(self):
    for batch in EVERY_BATCH(self):
        if self.epoch == 1:
            strike("training", self.rank)
        yield batch


DistributedBatchSampler.__iter__ = batches


def save(self, *about):
    strike("ending", 0)
    return SAVE(self, *about)


Run.save = save
'''
WORDS = [
    "stage=sft", "task=files", "task.prompts=prompts.jsonl", "task.demonstrations=prompts.jsonl", "task.test_fraction=0.3",
    "backbone=tiny", "backbone.layers=1", "backbone.width=16", "backbone.heads=2", "backbone.vocabulary=300", "backbone.positions=64",
    "logger=none", "rollout_sampler.max_new_tokens=4", "evaluation.responses=2", "evaluation.samples=1", "sft.batch_size=4",
    "sft.epochs=3", "sft.learning_rate=1e-2", "checkpoint.every=1",
]  # fmt: skip
THINGS = ["lamp", "fan", "kettle", "tent", "desk", "rug", "pen", "bike"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
LEFT_ALONE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KILL")}
ENV = LEFT_ALONE | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=1", "--master-port=0", "--rdzv-backend=c10d"]


class Command:
    """`python train.py` in a session of its own, so that orphans can be told."""

    def __init__(self, folder: Path, *words: str, before: tuple[str, ...] = (), **env: str) -> None:
        command = [sys.executable, *before, str(ROOT / "train.py"), *words]
        settings: dict[str, Any] = {"cwd": folder, "env": ENV | env, "start_new_session": True, "text": True}
        self.process = ForkedPopen(command, spares=4 if before else 1, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)

    def ended(self, timeout: float = 180) -> Command:
        try:
            self.out, self.error = self.process.communicate(timeout=timeout)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.code = self.process.returncode
        return self

    def left_running(self) -> list[int]:
        """Processes of the session that are still there, after a moment in which they may see that they are alone."""
        until = time.monotonic() + 5
        while (found := _of_session(self.process.pid)) and time.monotonic() < until:
            time.sleep(0.1)
        return found


def _of_session(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def world(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt": f"The {thing}:", "response": f" a good {thing}."}
        for thing in ["lamp", "fan", "kettle", "tent", "desk", "rug", "pen", "bike"]
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "struck.py").write_text(PLUGIN)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "policy" / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="session")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, torch.Tensor]]:
    """What a run of so many processes leaves that nothing happens to."""
    made: dict[int, dict[str, torch.Tensor]] = {}

    def run(processes: int) -> dict[str, torch.Tensor]:
        if processes not in made:
            folder = world(tmp_path_factory.mktemp("left_alone"))
            done = Command(folder, *WORDS, *(TWO if processes == 2 else []), "hydra.run.dir=out").ended()
            assert done.code == 0, done.error
            made[processes] = weights(folder / "out")
        return made[processes]

    return run


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="orphans are told by /proc")
@pytest.mark.parametrize(("rank", "name"), [(0, "out"), (1, 'it\'s "a=b", ${x}\\ [é]')])
def test_a_process_of_two_is_killed_the_other_ends_and_the_run_goes_on(tmp_path, left_alone, rank, name):
    folder = world(tmp_path)
    killed = Command(folder, *WORDS, *TWO, f"hydra.run.dir={quote_value(name)}", KILL=f"training:{rank}:9").ended()
    assert killed.code != 0
    waited = time.time() - (folder / "struck").stat().st_mtime
    print(f"rank {rank} killed: exit {killed.code} within {waited:.1f} s")
    assert waited < 30, "the other one waits"
    assert killed.left_running() == []
    assert list((folder / name / "checkpoints" / "sft").glob("step_*"))
    resumed = Command(folder, f"resume={name}").ended()
    assert resumed.code == 0, resumed.error
    assert "continuing after step" in resumed.out
    assert same(weights(folder / name), left_alone(2))
    assert sorted(path.name for path in folder.iterdir()) == sorted(["plugins", "prompts.jsonl", "struck", name])


@pytest.mark.slow
def test_torchrun_starts_the_command_again_and_it_goes_on(tmp_path, left_alone):
    folder = world(tmp_path)
    done = Command(folder, *WORDS, *TWO, "hydra.run.dir=out", "resume=auto", before=tuple(TORCHRUN), KILL="training:1:9").ended()
    assert done.code == 0, done.error
    assert (folder / "struck").exists()
    assert "continuing after step" in done.out
    assert same(weights(folder / "out"), left_alone(2))
    assert done.left_running() == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["training", "ending"])
def test_a_job_that_slurm_queues_again_goes_on_by_the_same_command(tmp_path, left_alone, place):
    folder = world(tmp_path)
    (folder / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {folder / 'called'}\n")
    (folder / "scontrol").chmod(0o755)
    job = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    env = job | {"PATH": f"{folder}:{os.environ['PATH']}", "KILL": f"{place}:0:{int(signal.SIGUSR1)}"}
    words = [*WORDS, "resume=auto"]
    first = Command(folder, *words, **env).ended()
    assert first.code == 138, first.error
    assert (folder / "called").read_text() == "requeue 77\n"
    second = Command(folder, *words, **env).ended()
    assert second.code == 0, second.error
    assert same(weights(folder / "runs" / "slurm_77"), left_alone(1))
    if place == "ending":
        return
    third = Command(folder, *words, **env).ended()
    assert third.code == 0
    assert "is already complete" in third.out
    other = Command(folder, *words, "sft.epochs=4", **env).ended()
    assert other.code == 2
    assert "began with other settings (sft.epochs: 3 -> 4)" in other.error


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_outside_of_a_training_ends_the_run_without_a_traceback(tmp_path, left_alone, number, code):
    folder = world(tmp_path)
    stopped = Command(folder, *WORDS, "hydra.run.dir=out", KILL=f"ending:0:{int(number)}").ended()
    assert stopped.code == code
    assert "Traceback" not in stopped.error
    assert f"stopped by {number.name}" in stopped.error
    assert not (folder / "out" / "result.json").exists()
    assert not (folder / "out" / "lock.json").exists()
    if number == signal.SIGINT:  # the folder is as SIGTERM leaves it
        return
    resumed = Command(folder, "resume=out").ended()
    assert resumed.code == 0, resumed.error
    assert "already complete, no step is left" in resumed.out
    assert same(weights(folder / "out"), left_alone(1))


@pytest.mark.slow
def test_a_second_command_in_the_folder_writes_nothing_and_changed_inputs_are_refused(tmp_path):
    folder = world(tmp_path)
    first = Command(folder, *WORDS, "hydra.run.dir=out", KILL=f"training:0:{int(signal.SIGSTOP)}")
    try:
        until = time.monotonic() + 120
        while not (folder / "struck").exists() and time.monotonic() < until:
            time.sleep(0.05)
        before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
        assert json.loads(before[folder / "out" / "lock.json"])["pid"] == first.process.pid
        for words in (["stage=inspect", "hydra.run.dir=out"], ["resume=out"], [*WORDS, "sft.epochs=9", "hydra.run.dir=out", "resume=auto"]):
            second = Command(folder, *words).ended()
            assert second.code == 2, second.error
            assert f"is in use: process {first.process.pid} on" in second.error
        assert {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()} == before
    finally:
        first.process.kill()
        first.ended()
    (folder / "prompts.jsonl").write_text((folder / "prompts.jsonl").read_text() + "\n")
    refused = Command(folder, "resume=out").ended()
    assert refused.code == 2
    assert "prompts.jsonl was modified" in refused.error
    accepted = Command(folder, "resume=out", "checkpoint.accept_changed_inputs=true").ended()
    assert accepted.code == 0, accepted.error
    assert "prompts.jsonl was modified, and the run continues with it" in accepted.out
    assert "checkpoint.accept_changed_inputs: False -> True" in accepted.out
