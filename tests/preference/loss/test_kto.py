"""KTO: the value function of the paper, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.preference.loss.kto import KTO
from rlhf_lightning.preference.record import Answers, Thumbed


def thumbs(log_probs: list[float], up: list[int], divergence: float = 0.0) -> Thumbed:
    given = torch.tensor(log_probs, dtype=torch.float64, requires_grad=True)
    return Thumbed(
        Answers(given, torch.ones(len(up)), torch.full_like(given, -2.0).detach()), torch.tensor(up), torch.tensor(divergence).double()
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_loss_is_the_paper_s():
    """lambda - v of equation 8: v = lambda sigmoid(beta (r - z)) for what is desired, lambda sigmoid(beta (z - r)) for what isn't."""
    loss = KTO(beta=0.5, desirable_weight=1.5, undesirable_weight=0.7)
    found = loss(thumbs([-1.0, -1.0, -6.0], [1, 0, 0], divergence=0.4)).tolist()
    expected = [1.5 * (1 - sigmoid(0.5 * (1 - 0.4))), 0.7 * (1 - sigmoid(0.5 * (0.4 - 1))), 0.7 * (1 - sigmoid(0.5 * (0.4 + 4)))]
    assert found == pytest.approx(expected, rel=1e-7)


def test_up_is_pulled_up_and_down_pushed_down_most_where_it_is_in_doubt():
    judged = thumbs([-2.0, -2.0, 40.0, 40.0], [1, 0, 1, 0])
    KTO(beta=1.0)(judged).sum().backward()
    slope = judged.answers.log_probs.grad.tolist()
    assert slope[:2] == pytest.approx([-0.25, 0.25])
    assert abs(slope[2]) < 1e-12
    assert abs(slope[3]) < 1e-12


def test_a_weight_of_nothing_teaches_nothing():
    judged = thumbs([-1.0, -1.0], [1, 0])
    KTO(undesirable_weight=0.0)(judged).sum().backward()
    assert judged.answers.log_probs.grad[0] < 0
    assert judged.answers.log_probs.grad[1] == 0
