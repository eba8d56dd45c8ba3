"""Plackett-Luce against its definition by enumeration, and against Bradley-Terry for two."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss.bradley_terry import bradley_terry_loss
from rlhf_lightning.reward.loss.plackett_luce import PlackettLuce, plackett_luce_loss


def brute_force(scores: list[float], order: tuple[int, ...]) -> float:
    """-log of the probability of choosing `order` one by one, in plain Python."""
    total, left = 0.0, list(order)
    while left:
        total -= scores[left[0]] - math.log(sum(math.exp(scores[i]) for i in left))
        left = left[1:]
    return total


def test_strict_rankings_equal_the_definition():
    scores = [0.3, -1.2, 2.0, 0.7]
    for order in itertools.permutations(range(4)):
        levels = [order.index(i) for i in range(4)]
        loss = plackett_luce_loss(torch.tensor([scores], dtype=torch.float64), torch.tensor([levels]))
        assert loss.item() == pytest.approx(brute_force(scores, order), abs=1e-12)


def test_probabilities_of_all_orders_sum_to_one():
    scores = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    orders = [plackett_luce_loss(scores, torch.tensor([list(levels)])) for levels in itertools.permutations(range(3))]
    assert torch.stack(orders).neg().exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_two_items_are_bradley_terry():
    scores = torch.randn(50, 2, dtype=torch.float64)
    pl = plackett_luce_loss(scores, torch.tensor([[0, 1]]).expand(50, 2))
    assert torch.allclose(pl, bradley_terry_loss(scores[:, 0] - scores[:, 1]), atol=1e-12)


def test_padding_adds_nothing_and_gets_no_gradient():
    scores = torch.tensor([[0.3, -1.2, 2.0, 99.0]], dtype=torch.float64, requires_grad=True)
    loss = plackett_luce_loss(scores, torch.tensor([[1, 2, 0, -1]]))
    assert loss.item() == pytest.approx(brute_force([0.3, -1.2, 2.0], (2, 0, 1)), abs=1e-12)
    loss.sum().backward()
    assert scores.grad[0, 3] == 0
    assert torch.isfinite(scores.grad).all()


def test_all_tied_says_nothing_and_ties_are_symmetric():
    scores = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64, requires_grad=True)
    assert plackett_luce_loss(scores, torch.tensor([[0, 0, 0]])).item() == 0
    tied = plackett_luce_loss(scores, torch.tensor([[0, 0, 1]]))
    expected = sum(math.log(sum(math.exp(s) for s in (0.3, -1.2, 2.0))) - s for s in (0.3, -1.2))
    assert tied.item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda s: plackett_luce_loss(s, torch.tensor([[0, 0, 1]])), (scores,))


def test_what_was_left_unranked_is_in_no_choice(batch_of):
    batch = batch_of([("p", ["a", "b", "c", "d"], [2, None, 0, 1], None), ("p", ["a", "b", "c"], [0, 1, 2], None)])
    scores = torch.tensor([0.3, -1.2, 2.0, 0.7], requires_grad=True)
    losses, weights = PlackettLuce()(ScoredBatch(scores=scores), batch)
    assert losses.tolist() == pytest.approx([brute_force([0.3, -1.2, 2.0, 0.7], (2, 3, 0)), brute_force([0.3, -1.2, 2.0], (0, 1, 2))])
    assert weights.tolist() == [1, 1]
    losses[0].backward()
    assert scores.grad[1] == 0


def breslow(scores: list[float], levels: tuple[int, ...]) -> float:
    """Each item that something is worse than, chosen against all that are not better, one by one in plain Python."""
    ranked = [(level, s) for level, s in zip(levels, scores, strict=True) if level >= 0]
    total = 0.0
    for level, s in ranked:
        if any(other > level for other, _ in ranked):
            total -= s - math.log(sum(math.exp(t) for other, t in ranked if other >= level))
    return total


def test_every_order_of_three_with_ties_and_unranked_equals_brute_force_with_its_gradient():
    scores = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64, requires_grad=True)
    for levels in itertools.product((-1, 0, 1, 2), repeat=3):
        given = torch.tensor([levels])
        assert plackett_luce_loss(scores, given).item() == pytest.approx(breslow(scores[0].tolist(), levels), abs=1e-12), levels
        assert torch.autograd.gradcheck(lambda s, given=given: plackett_luce_loss(s, given), (scores,))


def test_who_ranks_at_random_mixes_in_the_uniform_order(batch_of):
    batch = batch_of([("p", ["a", "b", "c", "d"], [2, 1, 0, 3], None)])
    loss = PlackettLuce(annotator_noise="learned", error_rate=0.3).double()
    values = [0.3, -1.2, 2.0, 0.7]
    found = loss(ScoredBatch(scores=torch.tensor(values, dtype=torch.float64)), batch)[0]
    expected = -math.log(0.7 * math.exp(-brute_force(values, (2, 1, 0, 3))) + 0.3 / math.factorial(4))
    assert found.item() == pytest.approx(expected)


def test_scores_far_apart_stay_finite_with_noise_and_without(batch_of):
    batch = batch_of([("p", ["a", "b", "c"], [0, 1, 2], None)])
    for loss in (PlackettLuce(), PlackettLuce(annotator_noise="learned")):
        scores = torch.tensor([-1e4, 0.0, 1e4], requires_grad=True)
        losses = loss(ScoredBatch(scores=scores), batch)[0]
        losses.sum().backward()
        assert torch.isfinite(losses).all()
        assert torch.isfinite(scores.grad).all()
