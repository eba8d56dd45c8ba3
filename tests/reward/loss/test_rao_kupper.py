"""Rao-Kupper: probabilities by definition, Bradley-Terry without ties, and a threshold that the data find."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry, bradley_terry_loss
from rlhf_lightning.reward.loss.rao_kupper import RaoKupper, rao_kupper


@settings(max_examples=60, deadline=None)
@given(a=st.floats(-5, 5), b=st.floats(-5, 5), threshold=st.floats(0.01, 4))
def test_probabilities_are_the_definition_s_and_sum_to_one(a, b, threshold):
    """P(first) = w1 / (w1 + theta w2) with worths w and theta >= 1, and the rest is a tie."""
    found = rao_kupper(torch.tensor(a - b, dtype=torch.float64), torch.tensor(threshold, dtype=torch.float64))
    one, two, theta = math.exp(a), math.exp(b), math.exp(threshold)
    first, second = one / (one + theta * two), two / (two + theta * one)
    assert [p.exp().item() for p in found] == pytest.approx([first, second, 1 - first - second], abs=1e-9)


def test_at_threshold_0_it_is_bradley_terry_and_nothing_is_tied():
    d = torch.linspace(-8, 8, 33, dtype=torch.float64)
    first, second, tie = rao_kupper(d, torch.tensor(0.0, dtype=torch.float64))
    assert torch.allclose(-first, bradley_terry_loss(d))
    assert torch.allclose(-second, bradley_terry_loss(-d))
    assert (tie == -torch.inf).all()


def test_pairs_edits_and_ties_cost_their_outcome(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 1], 2.0), ("q", ["x", "y"], [0, 0], None)])
    loss = RaoKupper(margin_coef=0.25)
    scores = torch.tensor([1.5, 0.5, -0.2, 0.4])
    losses, weights = loss(ScoredBatch(scores=scores), batch)
    threshold = loss.threshold
    expected = [-rao_kupper(torch.tensor(0.5), threshold)[0].item(), -rao_kupper(torch.tensor(-0.6), threshold)[2].item()]
    assert losses.tolist() == pytest.approx(expected)
    assert weights.tolist() == [1.0, 1.0]


def test_without_ties_the_threshold_goes_to_0_and_the_loss_to_bradley_terry_s(batch_with, minimised):
    batch = batch_with(pairs={"better": torch.tensor([0] * 7 + [1] * 3), "worse": torch.tensor([1] * 7 + [0] * 3)})
    loss, scores = RaoKupper().double(), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    minimised([scores, *loss.parameters()], lambda: loss(ScoredBatch(scores=scores), batch)[0].mean())
    assert loss.threshold.item() < 1e-3
    assert (scores[0] - scores[1]).item() == pytest.approx(math.log(7 / 3), abs=1e-3)
    plain = BradleyTerry()(ScoredBatch(scores=scores), batch)[0]
    assert torch.allclose(loss(ScoredBatch(scores=scores), batch)[0], plain, atol=1e-3)
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters())


def test_two_equal_items_give_the_threshold_in_closed_form(batch_with, minimised):
    """30 wins each way and 40 ties: a tie has probability tanh(threshold / 2) = 0.4."""
    pairs = {"better": torch.tensor([0] * 30 + [1] * 30), "worse": torch.tensor([1] * 30 + [0] * 30)}
    ties = {"first": torch.zeros(40, dtype=torch.long), "second": torch.ones(40, dtype=torch.long)}
    loss, batch = RaoKupper().double(), batch_with(pairs=pairs, ties=ties)
    minimised(list(loss.parameters()), lambda: loss(ScoredBatch(scores=torch.zeros(2, dtype=torch.float64)), batch)[0].mean())
    assert loss.threshold.item() == pytest.approx(2 * math.atanh(0.4), abs=1e-4)


def test_an_annotator_s_error_takes_the_worse_for_the_better_and_leaves_ties(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 1], None), ("q", ["x", "y"], [0, 0], None)])
    loss, scored = RaoKupper(annotator_noise="learned", error_rate=0.2), ScoredBatch(scores=torch.tensor([1.0, 0.0, 0.3, 0.0]))
    right, wrong, _ = (p.exp().item() for p in rao_kupper(torch.tensor(1.0), loss.threshold))
    tied = rao_kupper(torch.tensor(0.3), loss.threshold)[2].item()
    assert loss(scored, batch)[0].tolist() == pytest.approx([-math.log(0.8 * right + 0.2 * wrong), -tied], rel=1e-5)


def test_far_scores_stay_finite(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 1], None), ("q", ["x", "y"], [0, 0], None)])
    scores = torch.tensor([-1e4, 1e4, 1e4, -1e4], requires_grad=True)
    loss = RaoKupper()
    total = loss(ScoredBatch(scores=scores), batch)[0].sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(scores.grad).all()
