"""The command line itself: Tab, and a start that leaves torch's objects to nobody's care."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra._internal.core_plugins.fish_completion import FishCompletion
from hydra._internal.utils import create_config_search_path

from rlhf_lightning import registry
from rlhf_lightning.cli import main
from rlhf_lightning.cli.completion import print_candidates
from rlhf_lightning.config.presets import CONF

registry.load_components()
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("", {"stage=", "reward_head=", "ppo.", "trainer=", "seed="}),
        ("rew", {"reward.", "reward_head=", "reward_loss="}),
        ("reward_head=", {"reward_head=mlp", "reward_head=linear", "reward_head=gated"}),
        ("reward_head=m", {"reward_head=mlp"}),
        ("reward_head=mlp reward_head.", {"reward_head.hidden=", "reward_head.dropout="}),
        ("ppo.learning", {"ppo.learning_rate="}),
        ("advantage=gae advantage.la", {"advantage.lam="}),
        ("rollout_shaping.missing_eos.", {"rollout_shaping.missing_eos.penalty="}),
        ("trainer=", {"trainer=cpu", "trainer=ddp", "trainer=gpu"}),
    ],
)
def test_tab_offers_groups_options_and_keys(line, offered):
    completion = BashCompletion(ConfigLoaderImpl(create_config_search_path(str(CONF))))
    found = completion._query(config_name="config", line=line)
    assert offered <= set(found)
    assert all(one.startswith(line.split(" ")[-1]) for one in found)


def test_fish_shows_descriptions(monkeypatch, capsys):
    completion = FishCompletion(ConfigLoaderImpl(create_config_search_path(str(CONF))))
    for line in ("python train.py ppo.learning_r", "python train.py reward_head=m", "python train.py sft"):
        monkeypatch.setenv("COMP_LINE", line)
        print_candidates(completion, "config")
    described = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert described["ppo.learning_rate="].startswith("the peak of the schedule")
    assert "hidden layer" in described["reward_head=mlp"]
    assert described["sft."].startswith("Supervised fine-tuning")
    assert max(map(len, described.values())) <= 80


BASH = """
eval "$(python train.py -sc install=bash)"
COMP_LINE="python train.py reward_head=m"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=2
hydra_bash_completion
echo "offered: ${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_tab_in_a_real_bash(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "train.py").write_text((ROOT / "train.py").read_text())
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "broken.py").write_text("import nothing_of_this_name\n")
    venv = {"VIRTUAL_ENV": sys.prefix, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    env = os.environ | venv | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", BASH], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=env)
    assert done.stdout.splitlines()[-1] == "offered: reward_head=mlp", done.stderr
    assert "nothing_of_this_name" not in done.stderr, "nobody reads under a line that is being typed"


def test_what_is_loaded_for_good_is_no_garbage_and_other_things_are():
    was = gc.isenabled()
    main.load_components_frozen()
    assert gc.isenabled() == was
    assert gc.get_freeze_count() > 0
    before = gc.get_freeze_count()
    main.load_components_frozen()
    assert gc.get_freeze_count() <= before, "a second load freezes nothing that may be garbage by then"


def test_components_by_command(command):
    listed = command("components", "reward_head")
    assert listed.code == 0
    for text in ("reward_head=mlp", "hidden=256", "plugins/gated_head.py", "built in"):
        assert text in listed.out
    assert command("--help").out.count("\n") <= 58
