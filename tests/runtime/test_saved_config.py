"""A run's saved configuration runs it again with the same numbers, and nothing that a run writes holds a secret."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.cli.arguments import absolute_config_path, move_flags_last
from tests.fork_server import run

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = '''
"""A scorer that is called with a key."""
import torch
from rlhf_lightning.registry import register


@register("rollout_scorer", "keyed")
class Keyed:
    """Length, for who has the key."""

    def __init__(self, *, api_key: str, url: str = "", command: str = "", note: str = "") -> None:
        assert api_key == "abc123", api_key

    def __call__(self, rollout):
        return torch.tensor([float(len(text)) for text in rollout.responses])
'''


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())["metrics"]


def test_a_run_is_run_again_by_its_folder(command, world):
    words = world.ppo("ppo.learning_rate=1e-2", "advantage=rloo", "policy_kl=none", "seed=5")
    one = command(*words)
    assert one.code == 0, one.error
    two = command("--config-path", str(one.folder))
    assert two.code == 0, two.error
    assert metrics(two.folder) == metrics(one.folder)
    assert (one.folder / "policy" / "model.safetensors").read_bytes() == (two.folder / "policy" / "model.safetensors").read_bytes()
    saved = [OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False) for folder in (one.folder, two.folder)]
    assert saved[0] == saved[1]


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        (["seed=1", "--config-path", "X", "hydra.run.dir=Y"], ["seed=1", "hydra.run.dir=Y", "--config-path", "X"]),
        (["-cp", "a=b", "~logger", "--config-name=c", "-m", "seed=1,2"], ["~logger", "seed=1,2", "-cp", "a=b", "--config-name=c", "-m"]),
        (["--cfg", "job", "seed=1"], ["seed=1", "--cfg", "job"]),
        ([], []),
    ],
)
def test_hydra_is_given_its_flags_behind_the_overrides(words, ordered):
    from hydra._internal.utils import get_args_parser

    assert move_flags_last(words) == ordered
    read = get_args_parser().parse_args(move_flags_last(words))
    assert read.overrides == [word for word in ordered if word[0] != "-" and ("=" in word or "~" in word) and word != "a=b"]


def test_settings_of_a_saved_run_can_be_changed_and_are_still_checked(command, world):
    one = command(*world.sft())
    again = ["--config-path", str(one.folder)]
    other = command("sft.learning_rate=1e-2", "seed=9", *again)
    assert other.code == 0, other.error
    assert metrics(other.folder) != metrics(one.folder)
    for word, message in (("sft.epochs=0", "sft.epochs=0"), ("sft.epocs=1", "did you mean 'epochs'"), ("+sft.foo=1", "no setting 'foo'")):
        refused = command(word, *again)
        assert refused.code == 2
        assert message in refused.error
    refused = command("reward_head=mlp", *again)
    assert refused.code == 2
    assert "a saved configuration takes settings" in refused.error


def test_a_path_of_the_working_folder_is_one(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    whole = str((tmp_path / "run").resolve())
    assert absolute_config_path(["--config-path", "run", "seed=1"]) == ["--config-path", whole, "seed=1"]
    assert absolute_config_path(["-cp=run"]) == [f"-cp={whole}"]
    assert absolute_config_path(["--config-path", "other", "run"]) == ["--config-path", "other", "run"]


@pytest.mark.parametrize("sweep", [False, True])
def test_no_file_of_a_run_holds_a_secret(world, tmp_path, sweep):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "keyed.py").write_text(PLUGIN)
    words = [word for word in world.ppo("ppo.updates=1") if not word.startswith("rollout_scorer")]
    words += [
        "rollout_scorer=keyed",
        "rollout_scorer.keyed.api_key=abc123",
        "rollout_scorer.keyed.url=redis://:hunter2@host/x",
        "rollout_scorer.keyed.command='judge --api-key swordfish --n 2'",
        "rollout_scorer.keyed.note='Bearer opensesame'",
        "+hydra.job.env_set.MY_TOKEN=mellon99",
        "ppo.self_checks=false",
    ]
    command = [sys.executable, str(ROOT / "train.py"), *(["-m", "seed=1,2"] if sweep else []), *words]
    place = "hydra.sweep.dir=out" if sweep else "hydra.run.dir=out"
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = run([*command, place], cwd=tmp_path, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    secrets = [b"abc123", b"hunter2", b"swordfish", b"opensesame", b"mellon99"]
    files = {str(file): file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    files |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    assert [name for name, content in files.items() if any(secret in content for secret in secrets)] == []
    job = tmp_path / "out" / "0" if sweep else tmp_path / "out"
    assert "rollout_scorer.keyed.api_key=***" in (job / ".hydra" / "overrides.yaml").read_text()
    if not sweep:
        again = [sys.executable, str(ROOT / "train.py"), "--config-path", "out", "hydra.run.dir=again"]
        done = run(again, cwd=tmp_path, timeout=300, env=env)
        assert done.returncode == 2
        assert "rollout_scorer.keyed.api_key is a secret" in done.stderr
