"""Davidson: probabilities by definition, Bradley-Terry without ties, and the odds among decided pairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss.bradley_terry import bradley_terry_loss
from rlhf_lightning.reward.loss.davidson import Davidson, davidson


@settings(max_examples=60, deadline=None)
@given(a=st.floats(-5, 5), b=st.floats(-5, 5), nu=st.floats(0.01, 20))
def test_probabilities_are_the_definition_s(a, b, nu):
    """w1 : w2 : nu sqrt(w1 w2), with worths w."""
    found = davidson(torch.tensor([a - b], dtype=torch.float64), torch.tensor(math.log(nu), dtype=torch.float64))
    one, two = math.exp(a), math.exp(b)
    total = one + two + nu * math.sqrt(one * two)
    assert [p.exp().item() for p in found] == pytest.approx([one / total, two / total, nu * math.sqrt(one * two) / total], abs=1e-9)


def test_without_ties_it_is_bradley_terry():
    d = torch.linspace(-8, 8, 33, dtype=torch.float64)
    first, second, tie = davidson(d, torch.tensor(-torch.inf, dtype=torch.float64))
    assert torch.allclose(-first, bradley_terry_loss(d))
    assert torch.allclose(-second, bradley_terry_loss(-d))
    assert (tie == -torch.inf).all()


def test_among_decided_pairs_the_odds_are_those_of_the_scores():
    d = torch.linspace(-3, 3, 7, dtype=torch.float64)
    first, second, _ = davidson(d, torch.tensor(1.3, dtype=torch.float64))
    assert torch.allclose(first - second, d)


def test_two_items_are_recovered_in_closed_form(batch_with, minimised):
    """60 wins, 15 losses, 30 ties: exp(d) = 60 / 15 and nu = 30 / sqrt(60 * 15)."""
    pairs = {"better": torch.tensor([0] * 60 + [1] * 15), "worse": torch.tensor([1] * 60 + [0] * 15)}
    ties = {"first": torch.zeros(30, dtype=torch.long), "second": torch.ones(30, dtype=torch.long)}
    loss, scores, batch = Davidson().double(), torch.zeros(2, dtype=torch.float64, requires_grad=True), batch_with(pairs=pairs, ties=ties)
    minimised([scores, *loss.parameters()], lambda: loss(ScoredBatch(scores=scores), batch)[0].mean())
    assert (scores[0] - scores[1]).item() == pytest.approx(math.log(4), abs=1e-5)
    assert loss.tie.exp().item() == pytest.approx(30 / math.sqrt(60 * 15), abs=1e-5)


def test_weights_margins_and_errors(batch_of):
    batch = batch_of([("p", ["good", "bad"], [0, 1], 2.0), ("q", ["x", "y"], [0, 0], None)])
    loss = Davidson(margin_coef=0.5, annotator_noise="learned", error_rate=0.1)
    losses, weights = loss(ScoredBatch(scores=torch.tensor([1.5, 0.0, 0.3, 0.0])), batch)
    right, wrong, _ = (p.exp().item() for p in davidson(torch.tensor([0.5]), torch.tensor(0.0)))
    tied = davidson(torch.tensor([0.3]), torch.tensor(0.0))[2].item()
    assert losses.tolist() == pytest.approx([-math.log(0.9 * right + 0.1 * wrong), -tied], rel=1e-5)
    assert weights.tolist() == [1.0, 1.0]
