"""Learning rates among the metrics, of PPO's policy and critic too."""

from __future__ import annotations

import csv

import pytest


def test_policy_and_critic_have_their_rates_in_the_log(command, world):
    """With an optimizer, a schedule, an average of weights and a learning rate of the critic at once."""
    words = ["logger=csv", "ppo.updates=4", "optimizer=muon", "schedule=cosine", "schedule.warmup=1", "ppo.critic_learning_rate=1e-3"]
    done = command(*world.ppo(*words, "callback=[lr_monitor,ema]", "callback.lr_monitor.log_weight_decay=true"))
    assert done.code == 0, done.error
    with (done.folder / "logs" / "ppo" / "metrics.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["objective/kl"]]
    policy, critic = ([float(row[f"lr/{name}"]) for row in rows] for name in ("policy", "critic"))
    assert policy == pytest.approx([0.0, 2e-4, 1.5e-4, 0.5e-4])
    assert critic == pytest.approx([rate * 5 for rate in policy])
    assert {row["weight_decay/policy"] for row in rows} == {"0.0"}
