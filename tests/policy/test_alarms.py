"""Alarms: they sound where a scorer is gamed or a policy collapses, and rarely elsewhere."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.policy.alarms import (
    HELD_OUT,
    PROXY,
    alarm_notes,
    alarms,
    constant_scores,
    diversity_collapse,
    eos_collapse,
    held_out_peak,
    low_entropy,
    mann_kendall,
    overoptimisation,
)


def concordance(values: Sequence[float]) -> int:
    return sum((b > a) - (b < a) for a, b in itertools.combinations(values, 2))


@given(st.lists(st.integers(0, 3), min_size=3, max_size=6))
def test_mann_kendall_is_its_statistic_over_its_deviation_under_all_orders(values):
    s, orders = concordance(values), [concordance(order) for order in itertools.permutations(values)]
    deviation = pvariance(orders) ** 0.5
    expected = 0.0 if deviation == 0 or s == 0 else (s - (1 if s > 0 else -1)) / deviation
    assert mann_kendall(values) == pytest.approx(expected, abs=1e-9)
    assert mann_kendall(values[::-1]) == pytest.approx(-expected, abs=1e-9)


def story(score: Callable[[int], float], held_out: Callable[[int], float], updates: int = 60, every: int = 1, name: str = HELD_OUT[0]):
    return [{PROXY: score(i)} | ({name: held_out(i)} if i % every == 0 else {}) for i in range(updates)]


def began(history: Sequence[dict[str, float]]) -> int | None:
    return next((i for i in range(1, len(history) + 1) if overoptimisation(history[:i])), None)


@pytest.mark.parametrize("updates", [40, pytest.param(120, marks=pytest.mark.full)])
def test_a_flat_held_out_score_alarms_in_at_most_one_run_of_twenty(updates):
    """However fast the score rises: at every update of a run, over 400 runs."""
    rng, runs = random.Random(0), 400
    false = sum(began(story(lambda i: float(i), lambda i: rng.gauss(0, 1), updates)) is not None for _ in range(runs))
    assert false / runs <= 0.05


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_score_that_rises_while_the_held_out_one_falls_alarms(name):
    rng = random.Random(1)
    found = [
        began(story(lambda i: i / 10 + rng.gauss(0, 0.5), lambda i: (min(i, 30) - max(0, i - 30)) / 10 + rng.gauss(0, 0.3), 80, name=name))
        for _ in range(20)
    ]
    assert all(update is not None and 30 < update <= 60 for update in found)
    text = overoptimisation(story(float, lambda i: -float(i), name=name))
    assert name in text
    assert "score rose" in text


@pytest.mark.parametrize(("score", "held_out"), [(1, 1), (-1, -1), (-1, 1), (0, -1)])
def test_neither_agreement_nor_a_falling_score_alarms(score, held_out):
    assert began(story(lambda i: score * float(i), lambda i: held_out * float(i))) is None


def test_it_counts_what_was_measured_and_needs_ten_of_it():
    assert began(story(float, lambda i: -float(i))) == 10
    assert began(story(float, lambda i: -float(i), every=3)) == 28
    assert began([{PROXY: float(i)} for i in range(60)]) is None


def named(metric: str, values: Sequence[float]) -> list[dict[str, float]]:
    return [{metric: value} for value in values]


@pytest.mark.parametrize(
    ("values", "sounds"), [([2, 2, 2, 1, 0.1, 0.1, 0.1], True), ([2, 2, 2, 0.3, 0.3, 0.3], False), ([2, 2, 0.0, 0.0, 0.0], False)]
)
def test_the_entropy_falls_to_a_tenth(values, sounds):
    assert bool(low_entropy(named("policy/entropy_avg", values))) == sounds


@pytest.mark.parametrize(("last", "sounds"), [(0.2, True), (0.3, False)])
def test_distinct_pairs_fall_to_a_third(last, sounds):
    assert bool(diversity_collapse(named("val/distinct_2", [0.8] * 5 + [last] * 3))) == sounds


@pytest.mark.parametrize(
    ("rates", "lengths", "says"),
    [
        ((0.5, 0.0), (20, 48), "no response ends by itself"),
        ((0.0, 0.0), (20, 48), ""),  # it never did
        ((0.5, 0.0), (20, 22), ""),
        ((0.5, 1.0), (20, 5), "every response ends"),
        ((1.0, 1.0), (20, 5), "every response ends"),
        ((0.5, 1.0), (20, 15), ""),
        ((0.5, 0.4), (20, 48), ""),
    ],
)
def test_ends_are_lost_or_come_too_early(rates, lengths, says):
    rate, length = ([pair[0]] * 4 + [pair[1]] * 3 for pair in (rates, lengths))
    history = [{"val/eos_rate": r, "val/response_length": float(n)} for r, n in zip(rate, length, strict=True)]
    assert eos_collapse(history).startswith(says)
    assert bool(eos_collapse(history)) == bool(says)


@pytest.mark.parametrize(
    ("deviations", "sounds"),
    [([0.0] * 5, True), ([0.3, *[0.0] * 5], True), ([0.0] * 4, False), ([0.0, 0.0, 1e-9, 0.0, 0.0], False), ([*[0.0] * 5, 0.1], False)],
)
def test_scores_that_are_all_equal_in_five_updates_running(deviations, sounds):
    history = [{"objective/scores_std": deviation, PROXY: 0.5} for deviation in deviations]
    assert bool(constant_scores(history)) == sounds
    assert sounds == ("the last 0.5" in constant_scores(history))


def test_one_response_an_update_has_none_to_differ_from():
    assert constant_scores([{"objective/scores_std": 0.0, "episode": float(i)} for i in range(1, 9)]) == ""


def test_an_empty_history_has_every_alarm_and_none_sounds():
    assert alarms([]) == dict.fromkeys(["overoptimised", "peak", "entropy", "eos", "distinct", "constant"], "")


def test_a_note_says_when_it_began_and_how_long_it_stood():
    history: list[dict[str, float]] = []
    for step in story(float, lambda i: -float(i) if i < 20 else float(i), 40):
        metrics = {f"alarm/{name}": float(bool(text)) for name, text in alarms([*history, step]).items()}
        history.append(step | metrics)
    stood = [i for i, step in enumerate(history, 1) if step["alarm/overoptimised"]]
    (note,) = alarm_notes({"round 2": history, "round 1": history[:5]})
    assert note.startswith(f"Alarm (round 2, update {stood[0]}, raised in {len(stood)} of 40 updates): from update 1 to 10 the score rose")
    assert len(stood) < 30, "it ends when the held-out score rises again"
    assert fmean(stood) < 30


def agreement(start: float, end: float, updates: int = 40, responses: int = 96, seed: int = 0) -> list[dict[str, float]]:
    """A history whose correlation moves from start to end, linearly in the distance, with the noise of that many responses."""
    rng, rows = random.Random(seed), []
    for i in range(updates):
        correlation = start + (end - start) * i / (updates - 1) + rng.gauss(0, responses**-0.5)
        score = {PROXY: float(i), "objective/kl": (0.1 * i) ** 2, HELD_OUT[0]: 0.1 * i - 0.0025 * i * i}
        rows.append(score | {f"{HELD_OUT[0]}_correlation": correlation})
    return rows


def test_a_correlation_that_falls_alarms_before_it_is_zero():
    """It is 0.2 at update 14 and zero, where the held-out score has its peak, at update 20."""
    histories = [agreement(0.6, -0.6, seed=seed) for seed in range(40)]
    firsts = [next(i for i in range(1, 41) if held_out_peak(history[:i])) for history in histories]
    assert 11 < fmean(firsts) < 17
    assert max(firsts) <= 20
    text = held_out_peak(histories[0][:24])
    assert "objective/held_out_scores" in text
    assert "predicted peak is at a KL of" in text


def test_a_correlation_that_stays_positive_is_silent():
    assert not any(held_out_peak(agreement(0.8, 0.4, seed=seed)[:i]) for seed in range(40) for i in range(1, 41))
    assert not held_out_peak([{PROXY: 1.0, HELD_OUT[0]: 1.0}] * 30)
    assert not held_out_peak(agreement(0.0, 0.0)[:7])
    assert held_out_peak(agreement(0.0, 0.0)[:10])
