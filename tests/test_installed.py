"""The built wheel in an environment of its own, with no repository around: the path of a stranger, and plugins from everywhere."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fork_server import run as run_forked

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "plugins.md"
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    """The code blocks of docs/plugins.md."""
    return re.findall(rf"```{language}[^\n]*\n(.*?)```", PAGE.read_text(), re.DOTALL)


def pip(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True, capture_output=True, text=True, timeout=300)


Installed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "-q", ROOT, "--no-deps", "--no-build-isolation", "--no-index", "-w", folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that has the wheel, and this one's packages for everything else."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=120)
    packages = next(venv.glob("lib/python*/site-packages"))
    (packages / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", venv / "bin" / "python", "install", "-q", "--no-deps", "--no-index", wheel)
    return venv


@pytest.fixture
def installed(venv: Path) -> Installed:
    """Runs a program of the environment: in a process of its own, or as a fork of one that has imported the wheel."""

    def run(program: str, *words: str, workdir: Path, code: int = 0, fork: bool = True) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RLHF_PLUGINS")}
        env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        command = [str(venv / "bin" / program), *words]
        if fork:
            command = [str(venv / "bin" / "python"), *(words if program == "python" else command)]
            done = run_forked(command, cwd=workdir, timeout=300, env=env, spares=1)
        else:
            done = subprocess.run(command, cwd=workdir, capture_output=True, text=True, timeout=300, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def objectives(folder: Path) -> list[float]:
    with (folder / "sweep.csv").open() as lines:
        return [float(row["objective"]) for row in csv.DictReader(lines)]


def test_a_stranger_s_path(installed, world, empty):
    """From an empty folder: the plugin of the docs page, a training with it, and a sweep over it, by the page's own commands.

    The sweep runs in one process here; joblib's processes, with a plugin: tests/cli/sweep/test_sweeps.py.
    """
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code, commands = blocks("python")[0], blocks("bash")[0].splitlines()
    assert len(code.splitlines()) < 20
    (empty / "plugins").mkdir()
    (empty / "plugins" / "cosine.py").write_text(code)
    said = [command.split() for command in commands]
    assert [words[:2] for words in said] == [["rlhf-lightning", word] for word in ("components", "reward_head=cosine", "-m")]
    listed = installed(*said[0], workdir=empty, fork=False).stdout
    assert "reward_head=cosine" in listed
    assert "plugins/cosine.py" in listed
    trained = installed(*said[1], *world.reward("hydra.run.dir=one"), workdir=empty)
    assert "is left out" not in trained.stderr
    assert "_target_: plugins.cosine.CosineHead" in (empty / "one" / "config.yaml").read_text()
    assert (empty / "one" / "report.html").is_file()
    installed(*said[2], *world.reward("hydra.sweep.dir=two", "hydra.launcher.n_jobs=1"), workdir=empty)
    found = objectives(empty / "two")
    assert len(found) == 2
    assert all(map(math.isfinite, found))
    chosen = [(empty / "two" / job / "config.yaml").read_text() for job in "01"]
    assert ["scale: 1.0" in chosen[0], "scale: 5.0" in chosen[1]] == [True, True]


def test_a_folder_that_is_named_holds_in_every_process(installed, world, empty, tmp_path):
    """A folder that isn't called plugins, from another working folder, by `python -m rlhf_lightning`.

    The jobs of a sweep in other processes: tests/cli/sweep/test_sweeps.py.
    """
    heads = tmp_path / "my heads"
    heads.mkdir()
    (heads / "cosine.py").write_text(blocks("python")[0])
    module = ["-m", "rlhf_lightning", "--plugins", "../my heads"]
    words = world.reward("reward_head=cosine")
    installed("python", *module, *words, *TWO, "hydra.run.dir=two", workdir=empty)
    assert (empty / "two" / "reward_model" / "reward_head.safetensors").is_file()
    missing = installed("python", "-m", "rlhf_lightning", *words, workdir=empty, code=2)
    assert "no option reward_head=cosine" in missing.stderr


def test_a_package_brings_components_and_presets_until_it_is_gone(installed, venv, world, empty, tmp_path):
    source, preset = tmp_path / "source", "cosine_heads/conf/reward_head/sharp.yaml"
    (source / preset).parent.mkdir(parents=True)
    (source / "pyproject.toml").write_text(blocks("toml")[0])
    (source / "cosine_heads" / "__init__.py").touch()
    (source / "cosine_heads" / "cosine.py").write_text(blocks("python")[0])
    (source / preset).write_text(blocks("yaml")[0])
    pip("wheel", "-q", source, "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path)
    python = venv / "bin" / "python"
    pip("--python", python, "install", "-q", "--no-deps", "--no-index", next(tmp_path.glob("cosine_heads*.whl")))
    assert "cosine-heads 1.0" in installed("rlhf-lightning", "components", "reward_head", workdir=empty).stdout
    assert "sharp" in installed("rlhf-lightning", "--help", workdir=empty).stdout
    installed("rlhf-lightning", *world.reward("reward_head=sharp", "hydra.run.dir=out"), workdir=empty)
    config = (empty / "out" / "config.yaml").read_text()
    assert "_target_: cosine_heads.cosine.CosineHead\n  scale: 20" in config
    (empty / "plugins").mkdir()
    (empty / "plugins" / "cosine.py").write_text(blocks("python")[0])
    both = installed("rlhf-lightning", "components", "reward_head", workdir=empty).stderr
    assert "plugin package cosine-heads 1.0 (cosine_heads.cosine) is left out: RegistryError: reward_head=cosine is taken by" in both
    assert str(empty / "plugins" / "cosine.py") in both
    assert "cosine_heads/cosine.py (cosine-heads 1.0) must choose another name" in both
    (empty / "plugins" / "cosine.py").unlink()
    pip("--python", python, "uninstall", "-q", "-y", "cosine-heads")  # until then it scores: tests/test_real_processes.py
    scorer = world.ppo("rollout_scorer.reward_model.path=out/reward_model", "hydra.run.dir=gone")
    gone = installed("rlhf-lightning", *scorer, workdir=empty, code=2)
    assert "no option reward_head=cosine" in gone.stderr
    assert "a plugin must be in plugins/" in gone.stderr


SERVE = """
from pathlib import Path

import rlhf_lightning
from starlette.testclient import TestClient

from rlhf_lightning.collect.project import Project
from rlhf_lightning.collect.server.app import PACKAGE, Application
from rlhf_lightning.database.connection import Database
from rlhf_lightning.registry import components, load_components, make

load_components()
questions = {c.name: make("collect_question", c.name, {}) for c in components("collect_question")}
client = TestClient(Application(Project(Database("c.sqlite"), questions)).asgi())
static = [f"/static/{file.relative_to(PACKAGE / 'static')}" for file in (PACKAGE / "static").rglob("*.*")]
paths = [*static, *(f"/questions/{name}.js" for name in questions), "/", "/join/x"]
print(rlhf_lightning.__file__)
print(*(f"{client.get(path).status_code} {path}" for path in paths), sep="\\n")
"""


def test_the_collection_s_page_and_its_files_are_served(installed, empty):
    """Every file of the repository's static folder, the page of each question, and the templates."""
    pytest.importorskip("starlette")
    package, *served = installed("python", "-c", SERVE, workdir=empty).stdout.splitlines()
    assert str(ROOT) not in package
    static = ROOT / "rlhf_lightning" / "collect" / "static"
    assert {f"200 /static/{file.relative_to(static)}" for file in static.rglob("*.*")} <= set(served)
    assert {line for line in served if not line.startswith("200")} == {"401 /"}
