"""Thumbs: the logistic likelihood, and the threshold it recovers."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.loss.thumbs import LogisticThumbs


def test_the_loss_is_the_negative_log_likelihood(batch_with):
    loss = LogisticThumbs()
    with torch.no_grad():
        loss.threshold.fill_(0.4)
    thumbs = {"item": torch.tensor([2, 0, 1]), "up": torch.tensor([1.0, 0.0, 1.0]), "weight": torch.tensor([1.0, 2.0, 0.5])}
    losses, weights = loss(torch.tensor([1.5, 0.4, -1.0]), batch_with(thumbs=thumbs))
    expected = [math.log(1 + math.exp(1.4)), math.log(1 + math.exp(1.1)), math.log(2)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(weights, thumbs["weight"])


def test_far_scores_stay_finite(batch_with):
    batch = batch_with(thumbs={"item": torch.tensor([0, 1]), "up": torch.tensor([0.0, 0.0])})
    assert LogisticThumbs()(torch.tensor([1e4, -1e4]), batch)[0].tolist() == [1e4, 0]


def test_a_threshold_and_a_score_are_recovered_in_closed_form(batch_with):
    """70 of 100 up on one text, 20 of 100 on another whose score is held at 0: threshold -ln(20/80), score ln(70/30) + threshold."""
    up = torch.tensor([1.0] * 70 + [0.0] * 30 + [1.0] * 20 + [0.0] * 80)
    batch = batch_with(thumbs={"item": torch.tensor([0] * 100 + [1] * 100), "up": up})
    loss, score = LogisticThumbs(), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([score, *loss.parameters()], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(torch.cat([score, torch.zeros(1)]), batch)[0].mean()
        value.backward()
        return value

    optimizer.step(closure)
    assert loss.threshold.item() == pytest.approx(math.log(4), abs=1e-3)
    assert score.item() == pytest.approx(math.log(7 / 3) + math.log(4), abs=1e-3)


def test_no_thumbs_cost_nothing(batch_with):
    losses, weights = LogisticThumbs()(torch.tensor([1.0]), batch_with())
    assert losses.shape == weights.shape == (0,)
