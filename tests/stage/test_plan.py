"""stage=plan: from configs alone, with the batches that the job has, and near to what is measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.fork_server import run as run_forked

ROOT = Path(__file__).resolve().parents[2]


def plan_of(words: list[str], job: str) -> list[str]:
    return ["stage=plan", f"plan.job={job}", *[word for word in words if not word.startswith("stage=")]]


@pytest.mark.parametrize("job", ["sft", "reward", "preference", "ppo"])
def test_a_plan_names_models_phases_and_the_peak(command, world, job):
    outcome = command(*plan_of(getattr(world, job)(), job), "plan.switches=false")
    assert outcome.code == 0, outcome.error
    said = json.loads((outcome.folder / "plan.json").read_text())
    assert said["peak"]["high"] > said["peak"]["low"] > said["base"]["low"] > 0
    assert said["verdict"] == "it fits"
    assert {model["role"] for model in said["models"]} >= {"reward model" if job == "reward" else "policy"}
    assert outcome.result()["objective"] == pytest.approx(said["peak"]["high"] / 2**30)
    assert "training" in outcome.out


def test_the_plan_of_rounds_has_the_phases_of_its_stages(command):
    outcome = command("stage=plan", "plan.job=rounds", "plan.switches=false", "plan.batches=2")
    assert outcome.code == 0, outcome.error
    phases = [phase["name"] for phase in json.loads((outcome.folder / "plan.json").read_text())["phases"]]
    assert phases[0] == "sft: training"
    assert phases.index("collecting") < phases.index("reward: training") < phases.index("rollout")


def test_no_weights_are_read_and_switches_are_planned(command, world, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(world.policy, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    words = [word for word in world.ppo() if not word.startswith("backbone.path=")]
    outcome = command(*plan_of(words, "ppo"), f"backbone.path={bare}", "plan.device=T4", "trainer=gpu", "policy_critic=separate")
    assert outcome.code == 0, outcome.error
    said = json.loads((outcome.folder / "plan.json").read_text())
    assert {model["role"] for model in said["models"]} == {"policy", "critic", "reference", "reward model"}
    assert said["switches"]["policy_critic=shared"]["peak"]["low"] < said["peak"]["low"]
    assert said["switches"]["policy_tuning=lora"]["peak"]["high"] < said["peak"]["high"]
    assert said["switches"]["backbone.activation_checkpointing=true"]["seconds"] > said["seconds"]


def test_what_the_job_refuses_the_plan_refuses(command, world):
    outcome = command(*plan_of(world.ppo(), "ppo"), "advantage=grpo", "ppo.responses_per_prompt=1")
    assert outcome.code == 2
    assert "advantage=grpo compares responses to one prompt" in outcome.error


@pytest.mark.slow
@pytest.mark.parametrize(
    "heap",
    [
        pytest.param({}, id="keeps freed blocks"),
        pytest.param({"MALLOC_MMAP_THRESHOLD_": str(2**20)}, id="returns them", marks=pytest.mark.full),
    ],
)
def test_the_measured_peak_is_in_the_planned_range(world, tmp_path, heap):
    """The memory of the process; wider models and other trainings in benchmarks/plan.py.

    The allocator reads its variables when a process starts; without them a fork does.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **heap}
    shape = ["backbone.width=384", "backbone.layers=4", "backbone.heads=6", "backbone.family=gpt2", "sft.epochs=1", "sft.batch_size=64"]
    words = [word for word in world.sft() if not word.startswith(("sft.", "stage="))] + shape

    def run(folder: str, *given: str) -> float:
        command = [sys.executable, str(ROOT / "train.py"), *given, f"hydra.run.dir={folder}"]
        start = partial(subprocess.run, capture_output=True, text=True) if heap else run_forked
        done = start(command, cwd=tmp_path, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        return float(json.loads((tmp_path / folder / "result.json").read_text())["peak_bytes"])

    run("plan", "stage=plan", "plan.job=sft", "plan.switches=false", *words)
    measured = run("run", "stage=sft", *words)
    planned = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert planned["peak"]["low"] <= measured <= planned["peak"]["high"]
