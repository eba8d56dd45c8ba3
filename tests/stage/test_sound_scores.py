"""Stages whose reward model or scorer gives no numbers, or the same number for everything, say so with the cause."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file


def changed(world, folder: Path, value: float) -> Path:
    """The reward model with a head of this value in all weights, without the scores that its card records."""
    shutil.copytree(world.reward_model, folder)
    file = folder / "reward_head.safetensors"
    save_file({name: torch.full_like(tensor, value) for name, tensor in load_file(file).items()}, file)
    card = folder / "reward_model.json"
    about = json.loads(card.read_text())
    card.write_text(json.dumps({name: entry for name, entry in about.items() if name != "canary"}))
    return folder


def words_of(stage: str, world, model: Path) -> list[str]:
    asked = {"evaluate_reward": f"stage.models=[{model}]", "explain": f"stage.model={model}"}
    return [
        *getattr(world, stage)(),
        *([] if stage in asked else world.scorer),
        asked.get(stage, f"rollout_scorer.reward_model.path={model}"),
    ]


@pytest.mark.parametrize("stage", ["ppo", "evaluate", "evaluate_reward", "explain"])
def test_a_model_whose_weights_are_no_numbers_is_named(command, world, tmp_path, stage):
    model = changed(world, tmp_path / "nan", float("nan"))
    outcome = command(*words_of(stage, world, model))
    assert outcome.code == 2
    assert str(model) in outcome.error
    assert "diverged" in outcome.error
    assert "Traceback" not in outcome.error
    assert not (outcome.folder / "policy").exists()


@pytest.mark.parametrize("stage", ["ppo", "evaluate", "evaluate_reward", "explain"])
def test_a_model_that_tells_nothing_apart_is_reported(command, world, tmp_path, stage):
    outcome = command(*words_of(stage, world, changed(world, tmp_path / "zero", 0.0)))
    assert outcome.code == 0, outcome.error
    assert "the same score" in outcome.out
    notes = json.loads((outcome.folder / "report.json").read_text())["notes"]
    assert any("tells nothing apart" in note for note in notes)


@pytest.mark.parametrize("words", [["reward.learning_rate=10"], ["reward.learning_rate=1000", "reward_tuning=frozen"]])
def test_a_training_that_diverged_leaves_no_folder(command, world, words):
    outcome = command(*world.reward("reward.epochs=6", *words))
    assert outcome.code == 2
    assert "the training diverged" in outcome.error
    assert "lower reward.learning_rate" in outcome.error
    assert not (outcome.folder / "reward_model").exists()
