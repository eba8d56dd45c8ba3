"""Bradley-Terry: the goldens of three frameworks, ln 2 at equal scores, stable far away, and its closed form recovered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

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
        total = loss(torch.cat([chosen, rejected]), batch)[0].mean()
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
    zero = torch.zeros(1, dtype=torch.float64)
    assert bradley_terry_loss(zero, zero).item() == pytest.approx(math.log(2), abs=1e-12)
    far = torch.tensor([1e4, -1e4])
    assert torch.equal(bradley_terry_loss(far, -far), torch.tensor([0.0, 2e4]))


def test_swapping_the_sides_flips_the_gradient():
    a, b = torch.tensor([0.4, -2.0], requires_grad=True), torch.tensor([1.0, -1.5], requires_grad=True)
    # d/da of L(a, b) and of L(b, a) are -sigmoid(b - a) and sigmoid(a - b): they sum to sigmoid(a-b) - sigmoid(b-a)
    forward = torch.autograd.grad(bradley_terry_loss(a, b).sum(), a)[0]
    backward = torch.autograd.grad(bradley_terry_loss(b, a).sum(), a)[0]
    assert torch.allclose(forward, -torch.sigmoid(b - a).detach())
    assert torch.allclose(backward, torch.sigmoid(a - b).detach())
    shifted = bradley_terry_loss(a + 5, b + 5)
    assert torch.allclose(shifted, bradley_terry_loss(a, b), atol=1e-6)


def test_label_smoothing_has_its_minimum_at_the_smoothed_odds():
    difference = torch.linspace(-6, 6, 120001, dtype=torch.float64)
    loss = bradley_terry_loss(difference, torch.zeros_like(difference), label_smoothing=0.1)
    assert difference[loss.argmin()].item() == pytest.approx(math.log(0.9 / 0.1), abs=1e-3)


def test_two_items_recover_the_closed_form():
    """70 wins of 100: the maximum of the likelihood is ln(70/30)."""
    score = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([score], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = 70 * bradley_terry_loss(score, -score).sum() + 30 * bradley_terry_loss(-score, score).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert 2 * score.item() == pytest.approx(math.log(70 / 30), abs=1e-6)


def test_the_component_pulls_sums_to_zero_and_scales_margins(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 1], 2.0)])
    scores = torch.tensor([1.5, 0.5])
    losses, weights = BradleyTerry(margin_coef=0.5, centering=0.1)(scores, batch)
    expected = bradley_terry_loss(torch.tensor(1.5), torch.tensor(0.5), 1.0) + 0.1 * 4.0
    assert losses.item() == pytest.approx(expected.item())
    assert weights.tolist() == [1.0]


def test_a_tie_is_left_out(batch_of):
    losses, weights = BradleyTerry()(torch.tensor([1.5, 0.5]), batch_of([("p", ["good", "bad"], [0, 0], None)]))
    assert losses.shape == weights.shape == (0,)
