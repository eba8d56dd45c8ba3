"""What only a process of its own shows: plugins of another project, exit codes, and training on two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fork_server import run

ROOT = Path(__file__).resolve().parents[1]

HEAD = '''
"""A reward head of the user's own project."""
import torch
from torch import nn
from rlhf_lightning.registry import register


@register("reward_head", "mine")
class Mine(nn.Module):
    """A head of the user's own project."""

    def __init__(self, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(width)), scale

    def forward(self, phi: torch.Tensor) -> torch.Tensor:
        return self.scale * phi @ self.weight
'''


def train(*words: str, workdir: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return run(command, cwd=workdir, timeout=timeout, env=env, spares=1)


def test_a_plugin_of_another_project_is_an_option_at_once_and_a_broken_one_is_named(world, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(HEAD)
    (tmp_path / "plugins" / "broken.py").write_text("import nothing_of_this_name\n")
    done = train(*world.reward("reward_head=mine", "reward_head.scale=2", "hydra.run.dir=out"), workdir=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        f"plugin {tmp_path / 'plugins' / 'broken.py'}:1 is left out: ModuleNotFoundError: No module named 'nothing_of_this_name'"
        in done.stderr
    )
    assert "_target_: plugins.mine.Mine" in (tmp_path / "out" / "config.yaml").read_text()
    refused = train("reward_head=mine", "reward_head.skale=2", workdir=tmp_path)
    assert refused.returncode == 2
    assert "did you mean 'scale'" in refused.stderr


@pytest.mark.slow
def test_a_reward_model_of_a_plugin_scores_until_the_plugin_is_gone(world, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(HEAD)
    done = train(*world.reward("reward_head=mine", "hydra.run.dir=out"), workdir=tmp_path)
    assert done.returncode == 0, done.stderr
    again = train(*world.ppo("rollout_scorer.reward_model.path=out/reward_model", "hydra.run.dir=ppo"), workdir=tmp_path)
    assert again.returncode == 0, again.stderr
    (tmp_path / "plugins" / "mine.py").unlink()
    gone = train(*world.ppo("rollout_scorer.reward_model.path=out/reward_model"), workdir=tmp_path)
    assert gone.returncode == 2
    assert "no option reward_head=mine" in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.slow
def test_a_bug_of_a_plugin_is_named_with_its_line(world, tmp_path):
    (tmp_path / "plugins").mkdir()
    bug = HEAD.replace("return self.scale * phi @ self.weight", "raise RuntimeError('a bug')")
    (tmp_path / "plugins" / "mine.py").write_text(bug)
    done = train(*world.reward("reward_head=mine"), workdir=tmp_path)
    assert done.returncode == 2
    assert "reward_head=mine raised RuntimeError: a bug" in done.stderr
    assert f"{tmp_path / 'plugins' / 'mine.py'}:17, in forward" in done.stderr


BUG = """
import runpy, sys
from rlhf_lightning.sft.module import SFTModule

def broken(*_):
    raise RuntimeError("a bug")

SFTModule.training_step = broken
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_bug_of_the_package_exits_with_1_and_its_traceback(world, tmp_path):
    words = [str(ROOT / "train.py"), *world.sft(f"hydra.run.dir={tmp_path / 'out'}")]
    done = run([sys.executable, "-c", BUG, *words], cwd=tmp_path, timeout=120)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a bug" in done.stderr
    assert not (tmp_path / "out" / "result.json").exists()


TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.mark.slow
def test_two_processes_train_together(world, tmp_path):
    done = train(*world.rounds(*TWO, "logger=csv", "hydra.run.dir=out"), workdir=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert done.stdout.count("Report: ") == 1, "one process speaks"
    assert not list((tmp_path / "out").glob(".*.part"))


@pytest.mark.slow
def test_two_processes_run_a_saved_configuration_again(world, command, learned, tmp_path):
    """Lightning adds overrides behind the flag for the process that it starts, and Hydra takes none in front of it and behind it."""
    first = command(*world.sft("sft.learning_rate=1e-4"), folder=tmp_path / "first")
    assert first.code == 0, first.error
    words = ["trainer.strategy=ddp", "trainer.devices=2", "hydra.run.dir=again"]
    done = train(*words, "--config-path", "first", workdir=tmp_path)
    assert done.returncode == 0, done.stderr
    (one, _), (two, _) = learned(tmp_path / "first"), learned(tmp_path / "again")
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-6


@pytest.mark.slow
def test_a_batch_that_two_processes_can_not_share_is_refused(world, tmp_path):
    done = train(*world.ppo(*TWO, "ppo.prompts_per_update=3"), workdir=tmp_path)
    assert done.returncode == 2
    assert "ppo.prompts_per_update=3 must be a multiple of the 2 processes" in done.stderr


UNEVEN = '''
"""A scorer that fails the self-checks on the second process alone."""
import os
import torch
from rlhf_lightning.errors import UserError
from rlhf_lightning.registry import register


@register("rollout_scorer", "uneven")
class Uneven:
    """The length of responses; the second process refuses empty ones."""

    def __call__(self, rollout):
        if not any(rollout.responses) and os.environ.get("LOCAL_RANK", "0") == "1":
            raise UserError("nothing to score")
        return torch.tensor([float(len(text)) for text in rollout.responses])
'''


@pytest.mark.slow
def test_a_self_check_that_fails_on_one_process_stops_both(world, tmp_path):
    """A process that raised alone would leave the other waiting for its gradients."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "uneven.py").write_text(UNEVEN)
    words = [word for word in world.ppo(*TWO) if not word.startswith("rollout_scorer")]
    done = train(*words, "rollout_scorer=uneven", workdir=tmp_path, timeout=120)
    assert done.returncode != 0
    assert "a self-check failed on another process" in done.stderr
