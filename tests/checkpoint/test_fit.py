"""A training that is stopped after any step and resumed leaves bitwise what one without a stop leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from rlhf_lightning.checkpoint.fit import Watchdog, fit
from rlhf_lightning.checkpoint.lock import lock_folder
from rlhf_lightning.checkpoint.store import CheckpointStore
from rlhf_lightning.errors import ConfigError, DataError, UserError
from rlhf_lightning.training.datamodule import ShardedData
from rlhf_lightning.training.distributed import shared_loader
from tests.fork_server import run

KINDS = ["sft", "reward", "dpo", "ppo", "grpo"]
ROOT = Path(__file__).resolve().parents[2]


def in_a_process(*words: Any, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("trainings.py")), *map(str, words)]
    return run(command, timeout=timeout, env=env)


def hashes(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_with_checkpoints_leaves_what_one_without_leaves(trainings, uninterrupted, kind):
    assert uninterrupted(kind).left == trainings.trained(kind, None)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_after_any_step_it_leaves_the_same(trainings, uninterrupted, kind, tmp_path):
    whole = uninterrupted(kind)
    for step in range(1, trainings.STEPS[kind]):
        folder = whole.stopped_after(step, tmp_path / str(step))
        said: list[str] = []
        assert trainings.trained(kind, folder, log=said.append) == whole.left, f"resumed after step {step}"
        assert said == [f"{folder / f'step_{step}'}: continuing after step {step}"]


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_after_every_step_it_leaves_the_same(trainings, uninterrupted, kind, tmp_path):
    """A stop must not shift what the next one saves: the counters are right after any number of resumes."""
    folder = tmp_path / "checkpoints"
    for step in range(1, trainings.STEPS[kind] + 1):
        with pytest.raises(SystemExit) as stop:
            trainings.trained(kind, folder, trainings.Kills(step, signal.SIGTERM), every=99, keep=1)
        assert stop.value.code == 143
        newest = CheckpointStore(folder).newest()
        assert newest is not None
        assert newest.step == step
    assert trainings.trained(kind, folder) == uninterrupted(kind).left


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_training_takes_no_step_and_says_so(trainings, uninterrupted, kind, tmp_path):
    class NoStep(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            raise AssertionError("a step was taken")

    whole, said = uninterrupted(kind), []
    folder = whole.stopped_after(99, tmp_path / "copy")
    assert trainings.trained(kind, folder, NoStep(), log=said.append) == whole.left
    assert said == [f"{folder / f'step_{trainings.STEPS[kind]}'}: this training is already complete, no step is left"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_process_of_its_own_it_leaves_the_same(uninterrupted, kind, tmp_path):
    whole = uninterrupted(kind)
    folder = whole.stopped_after(4, tmp_path / "copy")
    assert hashes(in_a_process(kind, folder)) == whole.left


class Counting(L.LightningModule):
    """Remembers what Lightning hands it, and stops where it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.history: list[Any] = []

    def training_step(self, batch: list[int], batch_idx: int) -> torch.Tensor:
        self.history.append([self.trainer.current_epoch, batch_idx, batch, self.trainer.is_last_batch])
        return self.weight * 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rows", [12, 13])
def test_no_batch_is_seen_twice_or_left_out(trainings, tmp_path, rows, workers):
    """Through three epochs, with a stop after each step; also where the last batch is smaller, and with processes that load ahead."""
    batches = -(-rows // 4)

    def loader(rank: int, world: int) -> Any:
        made = shared_loader(range(rows), 4, (3, rank, world), collate=list, blank=list)
        made.num_workers, made.prefetch_factor = workers, 2 if workers else None
        return made

    def run(folder: Path, *callbacks: L.Callback) -> list[Any]:
        module = Counting()
        fit(trainings.trainer_of(3, *callbacks), module, ShardedData(loader), folder=folder, every=99, keep=1)
        return module.history

    whole = run(tmp_path / "whole")
    assert [(epoch, place) for epoch, place, _, _ in whole] == [(epoch, place) for epoch in range(3) for place in range(batches)]
    assert [is_last for _, _, _, is_last in whole] == ([False] * (batches - 1) + [True]) * 3
    for epoch in range(3):
        assert sorted(row for number, _, batch, _ in whole for row in batch if number == epoch) == list(range(rows))
    for step in range(1, 3 * batches) if workers == 0 else (batches - 1, batches, batches + 1):
        with pytest.raises(SystemExit):
            run(tmp_path / "stopped", trainings.Kills(step, signal.SIGINT))
        if workers:
            assert run(shutil.copytree(tmp_path / "stopped", tmp_path / f"copy {step}")) == whole
    assert run(tmp_path / "stopped") == whole


def test_curves_are_whole_after_a_stop(trainings, tmp_path):
    """A logger that begins its file anew gets what was logged before the checkpoint again, and what came after it only once."""
    from lightning.pytorch.loggers import CSVLogger

    def run(name: str, *callbacks: L.Callback) -> list[str]:
        logger = CSVLogger(tmp_path / name, name="logs", version="", flush_logs_every_n_steps=1)
        trainings.trained("sft", tmp_path / name / "checkpoints", *callbacks, every=2, logger=logger)
        return (tmp_path / name / "logs" / "metrics.csv").read_text().splitlines()

    class Dies(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.fit_loop.total_batch_idx == 2:
                raise RuntimeError("the machine stops")

    whole = run("whole")
    assert len(whole) == 7
    with pytest.raises(RuntimeError, match="the machine stops"):
        run("stopped", Dies())
    assert run("stopped") == whole
    assert run("stopped") == whole, "finished"


def test_other_data_is_refused(trainings, tmp_path):
    def run(rows: int, *callbacks: L.Callback) -> None:
        data = ShardedData(lambda rank, world: shared_loader(range(rows), 4, (3, rank, world), collate=list, blank=list))
        fit(trainings.trainer_of(2, *callbacks), Counting(), data, folder=tmp_path / "checkpoints", every=1)

    with pytest.raises(SystemExit):
        run(16, trainings.Kills(2, signal.SIGTERM))
    with pytest.raises(ConfigError, match=r"epochs of 4 batches, and now they have 5"):
        run(20)
    with pytest.raises(ConfigError, match=r"after 2 batches of an epoch that has 2"):
        run(8)


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "remove"])
@pytest.mark.parametrize("name", ["trainer.ckpt", "manifest.json"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(trainings, uninterrupted, tmp_path, harm, name):
    whole = uninterrupted("sft")
    folder = whole.stopped_after(4, tmp_path / "copy")
    for step, before in ((4, 3), (3, 2)):
        damage(folder / f"step_{step}" / name, harm)
        said: list[str] = []
        newest = CheckpointStore(folder, log=said.append).newest()
        assert newest is not None
        assert newest.step == before
        assert f"step_{step}/{name}" in " ".join(said)
        assert all(text.endswith(f"step_{before} is complete and is used") for text in said)
    assert trainings.trained("sft", folder, keep=2) == whole.left
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["step_5", "step_6"], "damaged ones go"


def test_with_no_whole_checkpoint_left_nothing_is_begun_anew(trainings, uninterrupted, tmp_path):
    folder = uninterrupted("sft").stopped_after(2, tmp_path / "copy")
    for step in (1, 2):
        damage(folder / f"step_{step}" / "trainer.ckpt", "flip")
    with pytest.raises(DataError, match="none is complete"):
        trainings.trained("sft", folder)


def damage(path: Path, harm: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    if harm == "remove":
        path.unlink()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"truncate": content[:-7], "flip": flipped, "empty": b""}[harm])


def test_a_full_disk_stops_the_training_and_leaves_the_checkpoint_before(trainings, uninterrupted, tmp_path):
    """The limit on a file's size is the real thing: a write that the system cuts off."""
    import resource

    whole = uninterrupted("sft")
    folder = whole.stopped_after(3, tmp_path / "copy")
    size = (folder / "step_3" / "trainer.ckpt").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(UserError, match=r"the checkpoint of step 4 couldn't be written .* after [\d,]+ bytes, [\d,]+ are free") as told:
            trainings.trained("sft", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(folder) in str(told.value)
    assert sorted(path.name for path in folder.iterdir()) == ["step_1", "step_2", "step_3"]
    assert trainings.trained("sft", folder) == whole.left


@pytest.mark.parametrize("place", ["a file", "/proc/nothing/here"])
def test_a_folder_that_can_not_be_written_is_refused_before_the_first_step(trainings, tmp_path, place):
    folder = Path(place)
    if not folder.is_absolute():
        (tmp_path / place).write_text("")
        folder = tmp_path / place / "checkpoints"
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir"):
        trainings.trained("sft", folder)


def test_a_second_trainer_in_the_folder_is_refused(trainings, tmp_path):
    with lock_folder(tmp_path), pytest.raises(ConfigError, match="is in use"):
        trainings.trained("sft", tmp_path)


def test_a_folder_may_have_any_name(trainings, uninterrupted, tmp_path):
    assert trainings.trained("sft", tmp_path / "мой запуск, 'so' [1] {x}" / "検 証") == uninterrupted("sft").left


STILL = """
import sys, time
from pathlib import Path
from rlhf_lightning.checkpoint.fit import Watchdog

def standing_still():
    time.sleep(60)

dog = Watchdog(Path(sys.argv[1]), 2 / 60)
dog.setup(None, None, "fit")
for _ in range(3):
    time.sleep(0.8)
    dog.on_train_batch_end()
print("moved", flush=True)
standing_still()
"""


def test_it_waits_from_batch_to_batch_and_then_ends_the_process_with_its_stacks(tmp_path):
    (tmp_path / "stalled_0.txt").write_text("what an earlier process left")
    done = run([sys.executable, "-c", STILL, str(tmp_path / "stalled_0.txt")], timeout=100)
    assert (done.returncode, done.stdout) == (1, "moved\n"), done.stderr
    assert "in standing_still" in (tmp_path / "stalled_0_again.txt").read_text()
    assert (tmp_path / "stalled_0.txt").read_text() == "what an earlier process left"


def test_it_leaves_nothing_where_a_training_ends_or_fails(tmp_path):
    nothing: Any = None
    for ends in ("teardown", "on_exception"):
        dog = Watchdog(tmp_path / "stalled_0.txt", 0.2 / 60)
        dog.setup(nothing, nothing, "fit")
        assert (tmp_path / "stalled_0.txt").exists()
        getattr(dog, ends)(nothing, nothing, nothing)
        assert not list(tmp_path.iterdir())
        dog.on_train_batch_end()
        time.sleep(0.4)


def test_a_folder_that_can_not_be_written_is_not_its_business(tmp_path):
    (tmp_path / "file").write_text("")
    dog = Watchdog(Path(tmp_path / "file" / "stalled_0.txt"), 1.0)
    nothing: Any = None
    dog.setup(nothing, nothing, "fit")
    dog.teardown(nothing, nothing, "fit")
