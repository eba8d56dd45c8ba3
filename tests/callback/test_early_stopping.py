"""A training ends when its metric stops improving; a metric that there isn't is named with those that there are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlhf_lightning.callback.early_stopping import check_monitor, early_stopping
from rlhf_lightning.errors import ConfigError
from tests.callback.test_ema import Stop, train


def test_it_counts_over_a_resume_and_ends_the_training(tmp_path):
    def stopping():
        return early_stopping(monitor="loss", min_delta=1e6, patience=3)

    assert len(train(tmp_path / "whole", stopping()).history) == 4, "the first value and three that are no improvement"
    with pytest.raises(KeyError):
        train(tmp_path / "stopped", stopping(), Stop(2))
    assert len(train(tmp_path / "stopped", stopping()).history) == 4


@pytest.mark.parametrize(("monitor", "mode"), [("evaluation/loss", "min"), ("objective/kl", "min"), ("evaluation/score", "max")])
def test_the_mode_follows_the_metric(monitor, mode):
    assert early_stopping(monitor=monitor).mode == mode
    assert early_stopping(monitor=monitor, mode="max").mode == "max"


def test_a_metric_that_there_is_not_is_refused_at_the_first_step(tmp_path):
    with pytest.raises(ConfigError, match=r"early_stopping\.monitor=sft/lost .* bad_updates, loss; .* evaluation\.every"):
        train(tmp_path, early_stopping(monitor="sft/lost"))


def test_a_metric_of_held_out_data_needs_evaluations():
    node = {"early_stopping": SimpleNamespace(monitor="evaluation/loss")}
    choices = SimpleNamespace(config=SimpleNamespace(callback=SimpleNamespace(**node), evaluation={"every": None}))
    with pytest.raises(ConfigError, match=r"evaluation\.every=10"):
        check_monitor(choices)
    choices.config.evaluation["every"] = 5
    check_monitor(choices)


def test_an_evaluation_ends_a_training(command, world):
    words = ["evaluation.every=1", "sft.epochs=3", "callback=[ema,early_stopping]", "callback.early_stopping.monitor=evaluation/loss"]
    done = command(*world.sft(*words, "callback.early_stopping.stopping_threshold=100"))
    assert done.code == 0, done.error
    training = done.result()["trainings"]["sft"]
    assert (training["reason"], training["steps"]) == ("early_stopping", 1)
