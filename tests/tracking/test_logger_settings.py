"""Metrics under other frameworks' names."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from rlhf_lightning.tracking.logger_settings import NAMINGS, LoggerSettings, rename_metrics


def test_what_has_no_counterpart_keeps_its_name():
    metrics = {"objective/scores": 1.0, "objective/kl": 2.0, "val/distinct_1": 3.0}
    assert rename_metrics(metrics, "trl") == metrics
    assert rename_metrics(metrics, "verl") == {"critic/score/mean": 1.0, "objective/kl": 2.0, "val/distinct_1": 3.0}
    assert rename_metrics(metrics, "openrlhf") == {"train/reward": 1.0, "objective/kl": 2.0, "val/distinct_1": 3.0}


def test_the_scores_of_several_scorers_are_named_after_them():
    metrics = {"objective/scores/match": 1.0}
    assert [rename_metrics(metrics, naming) for naming in ("trl", "verl", "openrlhf")] == [
        metrics, {"critic/score/match/mean": 1.0}, {"train/reward/match": 1.0},
    ]  # fmt: skip


def test_every_naming_is_a_setting():
    assert set(get_args(get_type_hints(LoggerSettings)["naming"])) == set(NAMINGS)


@pytest.mark.parametrize("naming", NAMINGS)
def test_no_two_metrics_become_one(naming):
    names = NAMINGS[naming]
    assert len(set(names.values())) == len(names)
    assert not set(names.values()) & set(names)


def test_every_name_is_one_that_a_run_logs(command, world):
    """A table's left side would grow stale in silence."""
    words = ["logger=csv", "policy_loss=dual_clip", "policy_correction=truncated"]
    outcome = command(*(word for word in world.ppo(*words) if word != "logger=none"))
    assert outcome.code == 0, outcome.error
    header = (outcome.folder / "logs" / "ppo" / "metrics.csv").read_text().splitlines()[0].split(",")
    logged = {*header, "sft/loss"}
    assert {name for names in NAMINGS.values() for name in names} <= logged
