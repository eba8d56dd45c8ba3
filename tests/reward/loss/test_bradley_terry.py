"""Bradley-Terry: the goldens of three frameworks, ln 2 at equal scores, stable far away, and its closed form recovered."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry, bradley_terry_loss

KEYS = [
    ("reward_pairwise", "nemo_rl", "PreferenceLossFn"),
    ("reward_pairwise", "openrlhf", "PairWiseLoss"),
    ("reward_pairwise", "trl", "RewardTrainer.compute_loss"),
    ("reward_pairwise", "openrlhf", "LogExpLoss"),
]


@pytest.mark.parametrize("key", KEYS, ids=lambda k: f"{k[1]}-{k[2]}")
def test_goldens(goldens, key):
    cases = goldens.of(key)
    assert cases
    for case in cases:
        chosen, rejected = case.x["chosen_r"].clone().requires_grad_(), case.x["rejected_r"].clone().requires_grad_()
        margin = case.x["margin"] if "margin" in case.uses else 0.0
        centering = case.p.get("center_rewards_coefficient") or 0.0
        loss = (bradley_terry_loss(chosen, rejected, margin) + centering * (chosen + rejected) ** 2).mean()
        loss.backward()
        tolerance = {"rtol": 1e-7, "atol": 1e-9} if case.dtype == "float64" else {"rtol": 1e-4, "atol": 3e-6}
        torch.testing.assert_close(loss.detach().double(), case.out["loss"].double(), **tolerance)
        torch.testing.assert_close(chosen.grad.double(), case.out["grad_chosen"].double(), **tolerance)
        torch.testing.assert_close(rejected.grad.double(), case.out["grad_rejected"].double(), **tolerance)


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
