"""Ratings: the normal likelihood, and the line it recovers."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.loss.gaussian_rating import GaussianRating


def test_the_loss_is_the_normal_negative_log_likelihood(batch_with):
    loss = GaussianRating()
    with torch.no_grad():
        loss.log_slope.fill_(math.log(2.0))
        loss.offset.fill_(-0.3)
        loss.log_spread.fill_(math.log(0.7))
    scores, ratings = torch.tensor([0.4, -1.0, 0.1]), torch.tensor([1.0, 0.2])
    losses, weights = loss(scores, batch_with(ratings={"item": torch.tensor([2, 0]), "z_score": ratings}))
    expected = -torch.distributions.Normal(2.0 * scores[[2, 0]] - 0.3, 0.7).log_prob(ratings)
    assert torch.allclose(losses, expected)
    assert weights.tolist() == [1.0, 1.0]


def test_slope_offset_and_spread_are_recovered(batch_with):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5000, generator=generator)
    said = 0.6 * scores + 0.2 + 0.5 * torch.randn(5000, generator=generator)
    batch = batch_with(ratings={"item": torch.arange(5000), "z_score": said})
    loss = GaussianRating()
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(scores, batch)[0].mean()
        value.backward()
        return value

    optimizer.step(closure)
    assert loss.log_slope.exp().item() == pytest.approx(0.6, abs=0.03)
    assert loss.offset.item() == pytest.approx(0.2, abs=0.03)
    assert loss.log_spread.exp().item() == pytest.approx(0.5, abs=0.03)
