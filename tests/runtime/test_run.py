"""One run: its parts by name, its files whole or not at all, and what its trainer and logger take."""

from __future__ import annotations

import io
import json

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import load_components
from rlhf_lightning.runtime.run import Run

load_components()


@pytest.fixture
def run(tmp_path) -> Run:
    config = {
        "seed": 3,
        "advantage": {"_target_": "rlhf_lightning.advantage.gae.gae", "_partial_": True, "lam": 0.5},
        "rollout_shaping": {"missing_eos": {"_target_": "rlhf_lightning.rollout.shaping.missing_eos.missing_eos"}},
        "logger": {"kind": "none"},
        "ppo": {"updates": 7},
    }
    return Run(OmegaConf.create(config), tmp_path, Console(file=io.StringIO()))


def test_parts_come_by_name(run):
    made = run.build("advantage")
    assert (made.func, made.keywords["lam"]) == (gae, 0.5)
    assert list(run.build_all("rollout_shaping")) == ["missing_eos"]
    assert run.build_all("reward_loss") == {}
    assert run.settings("ppo").updates == 7
    assert run.component_of("advantage").needs == {"values"}


def test_what_was_not_chosen_is_required(run):
    with pytest.raises(
        ConfigError,
        match=r"chooses no rollout_scorer and needs one: add `rollout_scorer=\.\.\.`.*lexicon, match, program, reference, reward_model",
    ):
        run.build("rollout_scorer")


def test_a_file_is_whole_or_not_there(run):
    run.write_json("result.json", {"a": "ü"})
    assert json.loads((run.folder / "result.json").read_text()) == {"a": "ü"}
    with pytest.raises(TypeError):
        run.write_json("result.json", {"a": object()})
    assert json.loads((run.folder / "result.json").read_text()) == {"a": "ü"}
    assert [file.name for file in run.folder.iterdir()] == ["result.json"]


def test_the_first_process_alone_speaks_and_writes(run, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    run.log("hello")
    run.write_json("result.json", {})
    assert not run.console.file.getvalue()
    assert not list(run.folder.iterdir())
    monkeypatch.setenv("LOCAL_RANK", "0")
    run.log("hello")
    assert run.console.file.getvalue() == "hello\n"


def test_times_of_one_stage_add_up(run):
    for _ in range(2):
        with run.time_stage("ppo"):
            pass
    assert list(run.seconds) == ["ppo"]
    assert run.seconds["ppo"] >= 0
