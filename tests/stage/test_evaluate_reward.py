"""stage=evaluate_reward by its command: one model, several side by side, any classifier, and what it refuses."""

from __future__ import annotations

import json

import pytest

from rlhf_lightning.stage.evaluate_reward import short_names


def report_of(outcome):
    return json.loads((outcome.folder / "report.json").read_text())


def test_the_held_out_prompts_give_what_the_training_gave(command, world):
    """On the same prompts the saved model has the metrics that its training told."""
    trained = command(*world.reward("reward.epochs=4", "reward.learning_rate=1e-2"))
    models = f"stage.models=[{trained.folder / 'reward_model'}]"
    again = command(*world.evaluate_reward(models, "stage.prompts=held_out", "reward.validation_fraction=0.3"))
    assert again.code == 0, again.error
    assert again.result()["metrics"] == pytest.approx(trained.result()["metrics"], abs=1e-5)
    assert again.result()["objective"] == trained.result()["objective"]
    whole = command(*world.evaluate_reward(models))
    shown = {metric["label"]: metric["after"]["n"] for metric in report_of(whole)["metrics"] if isinstance(metric["after"], dict)}
    assert shown["Reward-model accuracy, pairs"] == 12, "all prompts"


def test_several_models_stand_side_by_side_and_agree_with_themselves(command, world):
    paths = [
        command(*world.reward(f"seed={seed}", "reward.epochs=4", "reward.learning_rate=1e-2")).folder / "reward_model" for seed in (1, 2)
    ]
    outcome = command(*world.evaluate_reward(f"stage.models=[{','.join(map(str, paths))},{world.reward_model}]"))
    assert outcome.code == 0, outcome.error
    tables = {table["title"]: table["rows"] for table in report_of(outcome)["tables"]}
    assert len(tables["Models side by side"]) == 3
    assert len(tables["How far the models agree"]) == 3
    accuracies = [row[1] for row in tables["Models side by side"]]
    assert outcome.result()["objective"] == pytest.approx(sum(accuracies) / 3)
    assert {name.split("/accuracy")[0] for name in outcome.result()["metrics"] if name.endswith("accuracy/all")} == {
        row[0] for row in tables["Models side by side"]
    }
    for row in tables["How far the models agree"]:
        assert row[5] == 36, "three responses to each of twelve prompts"
        assert -1 <= row[3] <= row[2] + 1e-9 or row[2] < 0
    assert "Models side by side" in outcome.out


def test_any_classifier_with_one_label_is_measured(command, world, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoModelForSequenceClassification.from_pretrained(world.reward_model)
    theirs.save_pretrained(tmp_path / "theirs")
    AutoTokenizer.from_pretrained(world.reward_model).save_pretrained(tmp_path / "theirs")
    ours, plain = (command(*world.evaluate_reward(f"stage.models=[{path}]")) for path in (world.reward_model, tmp_path / "theirs"))
    assert plain.code == 0, plain.error
    # Neither order nor log-odds know the constants of the normalised score.
    assert plain.result()["metrics"] == pytest.approx(ours.result()["metrics"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage.models=[]"], "names no model"),
        (["stage.models=[a,a]"], "names a model twice"),
        (["stage.models=[nowhere/at/all]"], "nowhere/at/all"),
        (["stage.prompts=held_out", "reward.validation_fraction=1e-9"], "holds out none of these prompts"),
    ],
)
def test_what_can_not_be_measured_is_refused(command, world, words, said):
    outcome = command(*world.evaluate_reward(*words))
    assert outcome.code == 2
    assert said in outcome.error


def test_models_are_to_be_named(command, world):
    outcome = command(*[word for word in world.evaluate_reward() if not word.startswith("stage.models")])
    assert outcome.code == 2
    assert "stage.models must be given" in outcome.error


@pytest.mark.parametrize(
    ("paths", "short"),
    [
        (("runs/a/reward_model",), ["runs/a/reward_model"]),
        (("runs/a/reward_model", "runs/b/reward_model"), ["a", "b"]),
        (("runs/a/1/reward_model", "runs/b/2/reward_model"), ["a/1", "b/2"]),
        (("runs/a", "runs/a/b"), ["a", "a/b"]),
        (("gpt2", "org/model"), ["gpt2", "org/model"]),
        (("/x/one", "/x/two", "/x/three"), ["one", "two", "three"]),
    ],
)
def test_names_are_short_and_differ(paths, short):
    assert short_names(paths) == short
