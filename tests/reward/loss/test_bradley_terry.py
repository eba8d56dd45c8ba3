"""Bradley-Terry: the goldens of three frameworks, ln 2 at equal scores, stable far away, errors of annotators by hand.

Its closed form is recovered in tests/reward/test_recovery.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss._annotators import ERROR_SPREAD
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry, bradley_terry_loss

Case = Any

# Every recorded function of the family reward_pairwise: how near its arithmetic is (conftest's TOLERANCES), and what it returns besides.
FUNCTIONS = {
    ("nemo_rl", "PreferenceLossFn"): ("single", {"accuracy"}),  # float32 throughout; our accuracy is of held-out pairs, reward.module's
    ("openrlhf", "PairWiseLoss"): ("same", set()),
    ("openrlhf", "LogExpLoss"): ("same", set()),
    ("trl", "RewardTrainer.compute_loss"): ("same", set()),
}


@pytest.fixture
def ours(batch_with) -> Callable[[Case], dict[str, torch.Tensor]]:
    """P pairs of 2P responses: i is better than P + i."""

    def compute(case: Case) -> dict[str, torch.Tensor]:
        chosen, rejected = case.x["chosen_r"].clone().requires_grad_(), case.x["rejected_r"].clone().requires_grad_()
        loss = BradleyTerry(margin_coef=float("margin" in case.uses), centering=case.p.get("center_rewards_coefficient") or 0.0)
        order = torch.arange(len(chosen))
        batch = batch_with(pairs={"better": order, "worse": order + len(chosen), "margin": case.x["margin"]})
        total = loss(ScoredBatch(scores=torch.cat([chosen, rejected])), batch)[0].mean()
        total.backward()
        everything = {"loss": total.detach(), "grad_chosen": chosen.grad, "grad_rejected": rejected.grad}
        return {name: value for name, value in everything.items() if name in case.out}

    return compute


@pytest.mark.parametrize("function", FUNCTIONS, ids=".".join)
def test_goldens(goldens, ours, function):
    tolerance, beside = FUNCTIONS[function]
    goldens.hold(("reward_pairwise", *function), ours, tolerance=tolerance, beside=beside)


def test_every_recorded_case_is_accounted_for_with_margins_and_centering(goldens):
    recorded = {key[1:]: cases for key, cases in goldens.cases.items() if key[0] == "reward_pairwise"}
    assert recorded.keys() == FUNCTIONS.keys()
    assert sum(map(len, recorded.values())) == 120
    assert any("margin" in case["uses"] for case in recorded["openrlhf", "PairWiseLoss"])
    assert any(case["params"]["center_rewards_coefficient"] for case in recorded["trl", "RewardTrainer.compute_loss"])


def test_equal_scores_cost_ln_2_and_far_scores_stay_finite():
    assert bradley_terry_loss(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(math.log(2), abs=1e-12)
    assert torch.equal(bradley_terry_loss(torch.tensor([2e4, -2e4])), torch.tensor([0.0, 2e4]))


def test_label_smoothing_has_its_minimum_at_the_smoothed_odds():
    difference = torch.linspace(-6, 6, 120001, dtype=torch.float64)
    loss = bradley_terry_loss(difference, label_smoothing=0.1)
    assert difference[loss.argmin()].item() == pytest.approx(math.log(0.9 / 0.1), abs=1e-3)


def test_swapping_the_sides_flips_the_gradient_and_a_constant_changes_nothing(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 1], None)])

    def gradient(scores: list[float]) -> tuple[float, torch.Tensor]:
        values = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
        loss = BradleyTerry()(ScoredBatch(scores=values), batch)[0].sum()
        loss.backward()
        return loss.item(), values.grad

    (loss, forward), (swapped, backward) = gradient([0.4, 1.0]), gradient([1.0, 0.4])
    assert forward.tolist() == pytest.approx([-1 / (1 + math.exp(-0.6)), 1 / (1 + math.exp(-0.6))])
    assert backward.tolist() == pytest.approx([-1 / (1 + math.exp(0.6)), 1 / (1 + math.exp(0.6))])
    assert loss - swapped == pytest.approx(0.6)
    assert gradient([5.4, 6.0])[0] == pytest.approx(loss, abs=1e-12)


def test_the_component_pulls_sums_to_zero_and_scales_margins(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 1], 2.0)])
    losses, weights = BradleyTerry(margin_coef=0.5, centering=0.1)(ScoredBatch(scores=torch.tensor([1.5, 0.5])), batch)
    expected = bradley_terry_loss(torch.tensor(1.5 - 0.5 - 1.0)) + 0.1 * 4.0
    assert losses.item() == pytest.approx(expected.item())
    assert weights.tolist() == [1.0]


def test_a_tie_is_left_out(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 0], None)])
    losses, weights = BradleyTerry()(ScoredBatch(scores=torch.tensor([1.5, 0.5])), batch)
    assert losses.shape == weights.shape == (0,)


def test_an_error_rate_mixes_in_the_opposite_answer_and_its_prior_counts_once(batch_with):
    """-log((1 - e) p + e (1 - p)), e as the parameters say; the prior's halves of squares are dealt out over the judgements."""
    loss = BradleyTerry(torch.tensor([1.0, 2.0, 1.0]), annotator_noise="learned", error_rate=0.2).double()
    with torch.no_grad():
        loss.errors.common.fill_(0.3)
        loss.errors.annotator_logit.effects.copy_(torch.tensor([9.0, 0.4, -1.0]))
    pairs = {"better": torch.tensor([0, 0, 1, 1]), "worse": torch.tensor([1, 1, 0, 0]), "annotator": torch.tensor([0, 1, 1, 2])}
    found = loss(ScoredBatch(scores=torch.tensor([0.9, -0.2], dtype=torch.float64)), batch_with(pairs=pairs))[0]

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    rates = [sigmoid(math.log(0.25) + 0.3 + ERROR_SPREAD * own) for own in (0.0, 0.4, -1.0)]  # nobody known has no own
    assert loss.errors.rates().tolist() == pytest.approx(rates)
    p = [sigmoid(d) for d in (1.1, 1.1, -1.1, -1.1)]
    likelihood = [math.log((1 - e) * q + e * (1 - q)) for e, q in zip((rates[0], rates[1], rates[1], rates[2]), p, strict=True)]
    prior = 0.5 * (0.4**2 + 1.0**2 + 0.3**2)
    assert found.sum().item() == pytest.approx(prior - sum(likelihood))
