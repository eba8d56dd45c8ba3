"""Two machines' processes, as torchrun, Lightning's own launcher and SLURM start them, on this machine: one run, one process's weights."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.fork_server import ForkedPopen

ROOT = Path(__file__).resolve().parents[1]
TWO_NODES = ["trainer=multi_node", "trainer.accelerator=cpu"]
LAUNCHERS = ("MASTER_", "SLURM_", "TORCHELASTIC_", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "PYTHONPATH")


def free_port() -> str:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return str(place.getsockname()[1])


class Node:
    """A command on one machine of several; its output goes to files, so that none waits for a reader."""

    def __init__(self, program: Sequence[str], words: Sequence[str], env: Mapping[str, str], workdir: Path, name: str) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHERS)}
        clean |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **env}
        self.out, self.error = workdir / f"{name}.out", workdir / f"{name}.err"
        with self.out.open("w") as out, self.error.open("w") as error:
            command = [sys.executable, *program, str(ROOT / "train.py"), *words]
            self.process = ForkedPopen(command, spares=len(program) and 1, cwd=workdir, stdout=out, stderr=error, env=clean)

    def code(self) -> int:
        try:
            return self.process.wait(timeout=150)
        finally:
            self.process.kill()


def by_torchrun(words: Sequence[str], workdir: Path) -> list[Node]:
    place = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    return [Node(["-m", "torch.distributed.run", *place, f"--node_rank={i}"], words, {}, workdir, str(i)) for i in range(2)]


def by_lightning(words: Sequence[str], workdir: Path) -> list[Node]:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [Node([], [*words, "hydra.run.dir=runs/mine"], {**place, "NODE_RANK": str(i)}, workdir, str(i)) for i in range(2)]


def by_slurm(words: Sequence[str], workdir: Path, **other: str) -> list[Node]:
    job = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "2"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_LOCALID": "0", "MASTER_PORT": free_port(), **other}
    return [Node([], words, {**job, "SLURM_PROCID": str(i), "SLURM_NODEID": str(i)}, workdir, str(i)) for i in range(2)]


CASES = {
    "torchrun, ppo": (by_torchrun, "ppo", ["rollout_shaping=[normalise_score]"], "20*"),
    "Lightning, reward": (by_lightning, "reward", ["reward.batch_size=7"], "mine"),
    "SLURM, sft": (by_slurm, "sft", ["sft.batch_size=5", "sft.learning_rate=1e-4"], "slurm_4711"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_nodes_make_one_run_and_learn_what_one_process_learns(world, command, learned, tmp_path, case):
    """One folder, one report, one set of Hydra's files; the first process alone speaks."""
    start, stage, words, name = CASES[case]
    words = getattr(world, stage)(*words, "logger=csv")
    nodes = start([*words, *TWO_NODES], tmp_path)
    codes = [node.code() for node in nodes]
    assert codes == [0, 0], [node.error.read_text() for node in nodes]
    [folder] = (tmp_path / "runs").glob("*")
    assert folder.match(name)
    assert [node.out.read_text().count("Report: ") for node in nodes] == [1, 0]
    assert nodes[1].out.read_text() == ""
    assert len(list(folder.glob("**/report.html"))) == 1
    assert len(list(tmp_path.glob("**/.hydra"))) == 1
    assert not [word for word in (folder / ".hydra" / "overrides.yaml").read_text().split() if "output_subdir" in word]
    alone = command(*words, folder=tmp_path / "alone", workdir=tmp_path)
    assert alone.code == 0, alone.error
    (one, said), (two, again) = learned(tmp_path / "alone"), learned(folder)
    assert one.keys() == two.keys()
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 1e-6
    assert len(said) == len(again) >= 2
    for mine, theirs in zip(said, again, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5, rel=1e-4)


@pytest.mark.slow
def test_a_signal_of_slurm_to_one_node_stops_both_and_the_job_is_queued_again_once(world, tmp_path):
    called = tmp_path / "called"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    words = world.sft(*TWO_NODES, "sft.epochs=100000", "checkpoint.every=5")
    nodes = by_slurm(words, tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    checkpoints = tmp_path / "runs" / "slurm_4711" / "checkpoints"
    until = time.monotonic() + 120
    while not list(checkpoints.glob("*/step_*")) and time.monotonic() < until and nodes[0].process.poll() is None:
        time.sleep(0.1)
    nodes[1].process.send_signal(signal.SIGUSR1)
    codes = [node.code() for node in nodes]
    assert codes == [138, 138], [node.error.read_text() for node in nodes]
    assert called.read_text() == "requeue 4711\n"
    said = nodes[0].out.read_text()
    assert said.count("stopped by SIGUSR1 after step ") == 1
    step = re.search(r"stopped by SIGUSR1 after step (\d+)", said)[1]
    assert len(list(checkpoints.glob(f"*/step_{step}"))) == 1


def test_another_number_of_processes_than_requested_ends_before_anything_loads(world, tmp_path):
    [first, second] = by_slurm(world.sft("trainer=multi_node", "trainer.accelerator=cpu", "trainer.num_nodes=3"), tmp_path)
    assert [first.code(), second.code()] == [2, 2]
    assert "SLURM has --nodes=2 and trainer.num_nodes is 3" in first.error.read_text()
    assert not (tmp_path / "runs" / "slurm_4711" / "config.yaml").exists()
