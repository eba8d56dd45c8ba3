"""Plackett-Luce against its definition by enumeration, and against Bradley-Terry for two."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

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
    assert torch.allclose(pl, bradley_terry_loss(scores[:, 0], scores[:, 1]), atol=1e-12)


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


def test_a_plackett_luce_of_four_is_recovered_from_simulated_rankings():
    """Gumbel noise on the utilities gives Plackett-Luce orders; maximum likelihood finds the utilities again."""
    true = torch.tensor([0.0, 0.5, 1.2, -0.8], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    noise = -torch.log(-torch.log(torch.rand(5000, 4, generator=generator, dtype=torch.float64)))
    levels = (true + noise).argsort(1, descending=True).argsort(1)
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = plackett_luce_loss(scores.expand(5000, 4), levels).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = scores.detach() - scores.detach()[0]
    assert (found - true).abs().max() < 0.07


def test_what_was_left_unranked_is_in_no_choice(batch_of):
    batch = batch_of([("p", ["a", "b", "c", "d"], [2, None, 0, 1], None), ("p", ["a", "b", "c"], [0, 1, 2], None)])
    scores = torch.tensor([0.3, -1.2, 2.0, 0.7], requires_grad=True)
    losses, weights = PlackettLuce()(scores, batch)
    assert losses.tolist() == pytest.approx([brute_force([0.3, -1.2, 2.0, 0.7], (2, 3, 0)), brute_force([0.3, -1.2, 2.0], (0, 1, 2))])
    assert weights.tolist() == [1, 1]
    losses[0].backward()
    assert scores.grad[1] == 0
