"""Ratings: the normal likelihood, and the line it recovers."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.reward.loss.gaussian_rating import GaussianRating


def ratings_of(index: torch.Tensor, ratings: torch.Tensor) -> JudgementBatch:
    none, nothing = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    return JudgementBatch(
        input_ids=none, mask=none, pairs=none.reshape(0, 2), pair_weight=nothing, pair_margin=nothing, orders=none.reshape(0, 0),
        levels=none.reshape(0, 0), order_weight=nothing, rated=index, ratings=ratings, rating_weight=torch.ones(len(index)),
    )  # fmt: skip


def test_the_loss_is_the_normal_negative_log_likelihood():
    loss = GaussianRating()
    with torch.no_grad():
        loss.log_slope.fill_(math.log(2.0))
        loss.offset.fill_(-0.3)
        loss.log_spread.fill_(math.log(0.7))
    scores, ratings = torch.tensor([0.4, -1.0, 0.1]), torch.tensor([1.0, 0.2])
    losses, weights = loss(scores, ratings_of(torch.tensor([2, 0]), ratings))
    expected = -torch.distributions.Normal(2.0 * scores[[2, 0]] - 0.3, 0.7).log_prob(ratings)
    assert torch.allclose(losses, expected)
    assert weights.tolist() == [1.0, 1.0]


def test_slope_offset_and_spread_are_recovered():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5000, generator=generator)
    batch = ratings_of(torch.arange(5000), 0.6 * scores + 0.2 + 0.5 * torch.randn(5000, generator=generator))
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
