"""Win rates at equal length on simulated judges, and the best of n by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlhf_lightning.statistics.win_rates import best_of_n, best_of_n_kl, length_controlled_win_rate


def judged(advantage: float, length_bias: float, padding: float, seed: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes of a judge with a taste for length, of a policy that is better by `advantage` logits and longer by `padding`."""
    rng = np.random.default_rng(seed)
    extra = padding + rng.normal(size=n)
    chance = 1 / (1 + np.exp(-advantage - length_bias * np.tanh(extra / extra.std())))
    return (rng.random(n) < chance).astype(float), extra, np.arange(n) // 2


def test_a_policy_that_only_pads_wins_raw_and_not_at_equal_length():
    covered = 0
    for seed in range(20):
        wins, extra, prompts = judged(advantage=0.0, length_bias=1.5, padding=1.0, seed=seed)
        assert wins.mean() > 0.6
        controlled = length_controlled_win_rate(wins, extra, prompts)
        assert abs(controlled.mean - 0.5) < 0.08
        covered += controlled.low <= 0.5 <= controlled.high
    assert covered >= 17


def test_a_better_policy_keeps_its_advantage():
    controlled = length_controlled_win_rate(*judged(advantage=1.0, length_bias=1.5, padding=-1.0, seed=0, n=20000))
    assert controlled.mean == pytest.approx(1 / (1 + math.exp(-1)), abs=0.02)


def test_equal_lengths_give_the_raw_rate_and_separable_outcomes_end():
    wins = [1.0, 0.5, 0.0, 1.0, 1.0]
    assert length_controlled_win_rate(wins, [3] * 5, range(5)).mean == pytest.approx(np.mean(wins), abs=1e-4)
    assert 0.5 < length_controlled_win_rate([1.0] * 8, range(8), range(8)).mean <= 1
    assert length_controlled_win_rate([1.0, 0.0], [1, -1], [0, 0]).high == 1.0
    with pytest.raises(ValueError, match="lengths"):
        length_controlled_win_rate([1.0], [], [])


def test_the_best_of_n_is_the_mean_over_all_subsets():
    scores = [0.3, -1.0, 2.5, 0.3, 1.1]
    for n in range(1, 6):
        assert best_of_n(scores, n) == pytest.approx(np.mean([max(subset) for subset in itertools.combinations(scores, n)]))
    with pytest.raises(ValueError, match="5 samples"):
        best_of_n(scores, 6)
    assert [best_of_n_kl(n) for n in (1, 2)] == pytest.approx([0.0, math.log(2) - 0.5])
