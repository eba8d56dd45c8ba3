"""An evaluation every few steps leaves the training as it is, resumes exactly, and keeps the best weights."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from rlhf_lightning.training.periodic_evaluation import Evaluation, PeriodicEvaluation, trained_weights
from tests.checkpoint import trainings

VALUES = [0.1, 0.9, 0.5, 0.9, 0.2, 0.3]


class Evaluations:
    """Evaluations with VALUES, which draw numbers and change modes, and record the weights."""

    def __init__(self) -> None:
        self.module: Any = None
        self.weights: list[dict[str, torch.Tensor]] = []

    def __call__(self) -> Evaluation:
        torch.rand(3), np.random.rand(), random.random()
        self.module.train(not self.module.training)
        self.weights.append({name: weight.detach().clone() for name, weight in trained_weights(self.module)})
        return Evaluation({"score": VALUES[len(self.module.history) - 1]}, {"responses": [f"step {len(self.module.history)}"]})

    def callback(self, every: int = 1, **settings: Any) -> PeriodicEvaluation:
        periodic = PeriodicEvaluation(every, self, **settings)
        periodic.setup = lambda trainer, module, stage: setattr(self, "module", module)  # type: ignore[method-assign]
        return periodic


def without_history(left: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in left.items() if name != "history"}


@pytest.mark.parametrize("kind", ["sft", "reward", "ppo"])
def test_the_training_is_bitwise_that_without_evaluation(kind, tmp_path):
    plain = trainings.trained(kind, tmp_path / "plain")
    evaluated = trainings.trained(kind, tmp_path / "evaluated", Evaluations().callback())
    assert without_history(evaluated) == without_history(plain)


def test_a_resumed_training_evaluates_and_keeps_the_best_as_a_whole_one(tmp_path):
    complete = Evaluations().callback(monitor="evaluation/score")
    left = trainings.trained("sft", tmp_path / "complete", complete)
    for step in (1, 3):
        folder = tmp_path / f"resumed_{step}"
        with pytest.raises(RuntimeError, match="stopped"):
            trainings.trained("sft", folder, Evaluations().callback(monitor="evaluation/score"), StopsAt(step + 1))
        again = Evaluations().callback(monitor="evaluation/score")
        assert trainings.trained("sft", folder, again) == left
        assert (again.best["step"], again.best["value"], again.last) == (2, 0.9, complete.last)
        assert all(torch.equal(weight, complete.best["weights"][name]) for name, weight in again.best["weights"].items())


class StopsAt(trainings.L.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 2 == self.step + 1:
            raise RuntimeError("stopped")


@pytest.mark.parametrize(("is_max", "step"), [(True, 2), (False, 1)])
def test_the_best_weights_are_restored_and_the_first_of_equals_wins(is_max, step, tmp_path):
    evaluations = Evaluations()
    callback = evaluations.callback(monitor="evaluation/score", is_max=is_max)
    trainings.trained("sft", tmp_path, callback)
    assert callback.restore_best(evaluations.module)
    assert all(torch.equal(weight, evaluations.weights[step - 1][name]) for name, weight in trained_weights(evaluations.module))
    assert callback.of_result["measured"] == {"responses": [f"step {step}"]}


def test_early_stopping_finds_the_metrics_and_the_last_step_is_evaluated(tmp_path):
    evaluations = Evaluations()
    trainings.trained("sft", tmp_path / "all", evaluations.callback(every=4))
    assert [step.get("evaluation/score") for step in evaluations.module.history] == [None, None, None, VALUES[3], None, VALUES[5]]
    stopped = Evaluations()
    stopping = EarlyStopping("evaluation/score", mode="max", patience=1, check_on_train_epoch_end=False)
    trainings.trained("sft", tmp_path / "stopped", stopped.callback(), stopping)
    assert len(stopped.module.history) == 3, "the first evaluation after the best one"
