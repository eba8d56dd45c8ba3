"""`rlhf-lightning new`: what it writes passes at once, for every group and like every option, and nothing is overwritten."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.cli.scaffold.write import write_new
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.testing.trial import scored_rollout
from tests.fork_server import run

pytestmark = pytest.mark.usefixtures("untouched")
registry.load_components()
OPTIONS = [(c.group, c.name) for c in registry.components() if c.target.__module__.startswith("rlhf_lightning.")]


def python(*words: str, workdir: Path) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, *words], cwd=workdir, timeout=300)


@pytest.mark.slow
def test_a_new_component_of_every_group_passes_its_test_at_once(tmp_path):
    for group in registry.GROUPS:
        plugin, test = write_new([group, f"my_{group}"], tmp_path / "plugins")
        assert (plugin.name, test.name) == (f"my_{group}.py", f"test_my_{group}.py")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "plugins", workdir=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(registry.GROUPS)} passed" in done.stdout


def test_a_new_component_is_tidy(tmp_path):
    pytest.importorskip("ruff")
    for group in registry.GROUPS:
        write_new([group, "mine"], tmp_path / group)
    rules = ["--isolated", "--line-length=140", "--select=E,F,I,PT,SIM", "--config=lint.isort.known-first-party=['rlhf_lightning']"]
    done = python("-m", "ruff", "check", *rules, ".", workdir=tmp_path)
    assert done.returncode == 0, done.stdout


def test_it_tells_a_component_that_breaks_its_contract(tmp_path):
    """What is generated can fail: here a head that forgets the batch."""
    plugin, _ = write_new(["reward_head", "my_head"], tmp_path)
    plugin.write_text(plugin.read_text().replace("return score.squeeze(-1)", "return score.sum()"))
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", ".", workdir=tmp_path)
    assert "1 failed" in done.stdout


def test_every_option_can_be_copied_and_is_an_option_of_its_own(tmp_path):
    names = {(group, like): f"copied_{number}_{like}" for number, (group, like) in enumerate(OPTIONS)}
    for (group, like), name in names.items():
        write_new([group, name, "--like", like], tmp_path)
    assert registry.load_components([tmp_path]) == []
    for (group, like), name in names.items():
        copy, first = registry.option(group, name), registry.option(group, like)
        assert copy.file == str(tmp_path / f"{name}.py")
        assert (copy.summary, copy.needs) == (first.summary, first.needs)
        assert [s.name for s in registry.schema.settings_of(copy.target)] == [s.name for s in registry.schema.settings_of(first.target)]


def test_a_copy_does_what_the_first_does(tmp_path):
    write_new(["advantage", "mine", "--like", "gae"], tmp_path)
    registry.load_components([tmp_path])
    mine, gae = (registry.make("advantage", name, {"lam": 0.7})(scored_rollout()) for name in ("mine", "gae"))
    assert torch.equal(mine.advantages, gae.advantages)
    assert mine.advantages.abs().sum() > 0


def test_its_messages_name_it(tmp_path):
    plugin, _ = write_new(["task", "my_files"], tmp_path)
    text = plugin.read_text()
    assert "task=my_files knows no" in text
    assert text.startswith('"""task=my_files: a copy of task=files.\n')
    assert "class MyFiles:" in text
    assert not re.search(r"\bFiles\b", text)


def test_by_command(command, tmp_path):
    """Into plugins/ of the working folder, where it is an option at once."""
    done = command("new", "reward_head", "my_head", workdir=tmp_path)
    assert (done.code, done.out) == (0, "plugins/my_head.py\nplugins/test_my_head.py\n")
    assert "reward_head=my_head" in command("components", "reward_head", workdir=tmp_path).out
    before = (tmp_path / "plugins" / "my_head.py").read_text()
    again = command("new", "reward_head", "my_head", workdir=tmp_path)
    assert again.code == 2
    assert f"error: reward_head=my_head is taken by {tmp_path / 'plugins' / 'my_head.py'}" in again.error
    assert (tmp_path / "plugins" / "my_head.py").read_text() == before


@pytest.mark.parametrize("file", ["mine.py", "test_mine.py"])
def test_nothing_is_overwritten(tmp_path, file):
    (tmp_path / file).write_text("precious")
    with pytest.raises(ConfigError, match=rf"{file} exists and is not overwritten"):
        write_new(["advantage", "mine"], tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == [file]
    assert (tmp_path / file).read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "write rlhf-lightning new GROUP NAME"),
        (["reward_head"], "write rlhf-lightning new GROUP NAME"),
        (["reward_head", "a", "b"], "write rlhf-lightning new GROUP NAME"),
        (["reward_head", "a", "--like"], "write rlhf-lightning new GROUP NAME"),
        (["reward_head", "a", "--lik=mlp"], "write rlhf-lightning new GROUP NAME"),
        (["reward_heads", "mine"], "no group 'reward_heads', did you mean 'reward_head'"),
        (["reward_head", "mine", "--like", "mpl"], "no option reward_head=mpl, did you mean 'mlp'"),
        (["reward_head", "my-head"], "'my-head' can't be a component's name"),
        (["reward_head", "MyHead"], "'MyHead' can't be"),
        (["reward_head", "../head"], "'../head' can't be"),
        (["reward_head", "2head"], "'2head' can't be"),
        (["reward_head", "lambda"], "'lambda' can't be"),
        (["reward_head", "test_head"], "'test_head' can't be"),
        (["reward_head", "conftest"], "'conftest' can't be"),
        (["reward_head", "mlp"], "reward_head=mlp is taken by"),
        (["advantage", "group_centered_rewards"], "'group_centered_rewards' is a name of something else in"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_writes_nothing(tmp_path, words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        write_new(words, tmp_path / "plugins")
    assert not (tmp_path / "plugins").exists()
