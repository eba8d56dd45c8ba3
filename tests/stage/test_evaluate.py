"""stage=evaluate by its command: a policy alone, with a scorer, and against its start."""

from __future__ import annotations

import json

import pytest


def test_a_policy_alone_is_measured_by_the_metrics(command, world):
    outcome = command(*world.evaluate())
    assert outcome.code == 0, outcome.error
    metrics = outcome.result()["metrics"]
    assert set(metrics) == {"length/after", "distinct_2/after"}
    assert 1 <= metrics["length/after"] <= 8
    assert outcome.result()["objective"] == metrics["length/after"]


def test_a_scorer_comes_first(command, world):
    outcome = command(*world.evaluate(*world.scorer))
    assert outcome.result()["objective"] == outcome.result()["metrics"]["score/after"]


def test_against_itself_nothing_changed(command, world):
    outcome = command(*world.evaluate(f"stage.reference={world.policy}", *world.scorer))
    metrics = outcome.result()["metrics"]
    assert metrics["kl"] == 0.0
    assert metrics["score/after"] == metrics["score/before"]
    report = json.loads((outcome.folder / "report.json").read_text())
    assert report["title"] == "Evaluation"
    assert len(report["samples"]) == 2


def test_against_another_policy_the_kl_is_positive(command, world):
    other = command(*world.sft("backbone.positions=64", "sft.epochs=6", "seed=3"))
    assert other.code == 0, other.error
    outcome = command(*world.evaluate(f"stage.reference={other.folder / 'policy'}", "evaluation.responses=64"))
    assert outcome.code == 0, outcome.error
    assert outcome.result()["metrics"]["kl"] > 0.01


def test_the_utility_is_measured_where_the_task_knows_it(command, world):
    words = ["stage=evaluate", "task=reviews", "task.demonstrations=60", *world.trained, *world.sizes]
    assert "utility/after" in command(*words).result()["metrics"]


@pytest.mark.parametrize("words", [["evaluation_metric=[]"], ["evaluation_metric=[utility]"]])
def test_nothing_to_measure_is_reported(command, world, words):
    outcome = command(*world.evaluate(*words))
    assert outcome.code == 2
    assert "nothing to measure" in outcome.error
    assert "evaluation_metric" in outcome.error
