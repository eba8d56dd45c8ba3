"""From 5,000 simulated judgements each likelihood's parameters are found again, and knowing of noise helps where there is some.

The simulations are those of benchmarks/reward_losses.py, through the losses as a run builds them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rlhf_lightning.statistics.intervals import paired_interval

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "reward_losses.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    if not BENCHMARK.exists():
        pytest.skip("the benchmarks are not beside the tests")
    spec = importlib.util.spec_from_file_location("reward_losses_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(3))
def test_a_bradley_terry_of_two_is_its_closed_form_and_near_the_truth(simulation, seed):
    found = simulation.two_items(seed)
    assert found["found"] == pytest.approx(found["closed form"], abs=1e-6)
    assert abs(found["found"] - found["truth"]) < 3 * found["standard error"]


@pytest.mark.parametrize("seed", range(3))
def test_a_plackett_luce_of_four_is_what_minorise_maximise_finds(simulation, seed):
    found = simulation.plackett_luce_of_four(seed)
    assert found["to MM"] < 1e-5
    assert found["to truth"] < 0.1  # about three standard errors


@pytest.mark.parametrize("name", ["rao_kupper", "davidson"])
def test_ties_teach_how_likely_a_tie_is(simulation, name):
    found = simulation.ties(0, name)
    assert found["tie"] < 0.1
    assert found["scores"] < 0.15


def test_an_ordinal_rating_gives_back_slope_thresholds_and_who_is_lenient(simulation):
    found = simulation.ordinal_rating(0)
    assert found["slope"] < 0.1
    assert found["thresholds"] < 0.2
    assert found["shifts"] < 0.3  # each from 500 ratings


def test_a_rating_line_gives_back_slope_offset_spread_and_biases(simulation):
    found = simulation.rating_line(0)
    assert max(found["slope"], found["offset"], found["spread"]) < 0.02
    assert found["biases"] < 0.05


@pytest.mark.parametrize("name", ["bradley_terry", "plackett_luce"])
def test_a_likelihood_that_knows_of_noise_orders_new_texts_better(simulation, name):
    """Six of 20 annotators answer at random; the gain is above 0 at 95 % over six seeds."""
    rows = [simulation.noise_aware(seed, name) for seed in range(6)]
    gain = paired_interval([row["none"] for row in rows], [row["learned"] for row in rows])
    assert gain.low > 0, gain


def test_who_answers_at_random_is_found_out(simulation):
    rates = simulation.error_rates(0)
    assert min(rates[: simulation.AT_RANDOM]) > max(rates[simulation.AT_RANDOM :])
