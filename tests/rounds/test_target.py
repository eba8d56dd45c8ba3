"""Targets: their grammar, their decisions, and the coverage of their intervals over all looks of a run."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.rounds.target import ALPHA, Target, check_name, look_level, parse_target
from rlhf_lightning.statistics.intervals import Interval, clustered_proportion_interval


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("win_rate>=0.65", Target("win_rate", ">=", 0.65)),
        (" length <= 20 ", Target("length", "<=", 20.0)),
        ("chrf>=1e-1", Target("chrf", ">=", 0.1)),
        ("utility>=1.5", Target("utility", ">=", 1.5)),
    ],
)
def test_a_target_is_a_name_a_relation_and_a_number(text, target):
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["1.5", "utility>1", "utility>=", "win_rate>=1.2", "utility<=1", "utility>=-1", ">=3", ""])
def test_another_text_is_refused_with_the_setting(text):
    with pytest.raises(ConfigError, match=r"stage\.target="):
        parse_target(text)


def test_a_value_that_is_not_measured_is_refused_with_its_remedy_or_the_nearest_name():
    with pytest.raises(ConfigError, match="add this"):
        check_name(Target("score", ">=", 1.0), ["win_rate"], {"score": "add this"})
    with pytest.raises(ConfigError, match="did you mean 'win_rate'"):
        check_name(Target("winrate", ">=", 0.6), ["win_rate", "length"], {})
    check_name(Target("win_rate", ">=", 0.6), ["win_rate"], {})


def test_the_bound_decides_and_of_the_utility_the_estimate():
    wide = Interval(mean=0.7, low=0.6, high=0.8, n=100)
    assert not Target("win_rate", ">=", 0.65).is_met(wide)
    assert Target("win_rate", ">=", 0.6).is_met(wide)
    assert not Target("length", "<=", 0.75).is_met(wide)
    assert Target("length", "<=", 0.8).is_met(wide)
    assert Target("utility", ">=", 0.65).is_met(wide)


@pytest.mark.parametrize(("truth", "rounds"), [(0.5, 5), (0.65, 3)])
def test_all_looks_of_a_run_cover_their_win_rates_together(truth, rounds):
    """Simulated: prompts of differing win rates, two annotators each, a look after every round at another policy."""
    rng, runs, prompts = np.random.default_rng(0), 400, 100
    level, covered = look_level(rounds), 0
    clusters = np.repeat(np.arange(prompts), 2)
    for _ in range(runs):
        intervals = []
        for _ in range(rounds):
            rates = rng.beta(4 * truth, 4 * (1 - truth), prompts)
            intervals.append(clustered_proportion_interval(rng.random(2 * prompts) < np.repeat(rates, 2), clusters, level))
        covered += all(interval.low <= truth <= interval.high for interval in intervals)
    assert covered / runs >= 1 - ALPHA - 2 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
