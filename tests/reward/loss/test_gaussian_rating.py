"""Ratings: the normal likelihood, and the line it recovers."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.reward.components import ScoredBatch
from rlhf_lightning.reward.loss.gaussian_rating import GaussianRating


def test_the_loss_is_the_normal_negative_log_likelihood(batch_with):
    loss = GaussianRating()
    with torch.no_grad():
        loss.log_slope.fill_(math.log(2.0))
        loss.offset.fill_(-0.3)
        loss.log_spread.fill_(math.log(0.7))
    scores, ratings = torch.tensor([0.4, -1.0, 0.1]), torch.tensor([1.0, 0.2])
    losses, weights = loss(ScoredBatch(scores=scores), batch_with(ratings={"item": torch.tensor([2, 0]), "z_score": ratings}))
    expected = -torch.distributions.Normal(2.0 * scores[[2, 0]] - 0.3, 0.7).log_prob(ratings)
    assert torch.allclose(losses, expected)
    assert weights.tolist() == [1.0, 1.0]


def test_slope_offset_and_spread_are_recovered(batch_with, minimised):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5000, generator=generator)
    said = 0.6 * scores + 0.2 + 0.5 * torch.randn(5000, generator=generator)
    batch = batch_with(ratings={"item": torch.arange(5000), "z_score": said})
    loss = GaussianRating()
    minimised(list(loss.parameters()), lambda: loss(ScoredBatch(scores=scores), batch)[0].mean())
    assert loss.log_slope.exp().item() == pytest.approx(0.6, abs=0.03)
    assert loss.offset.item() == pytest.approx(0.2, abs=0.03)
    assert loss.log_spread.exp().item() == pytest.approx(0.5, abs=0.03)


def test_each_aspect_has_its_line_and_its_score_where_the_head_knows_one(batch_with):
    loss = GaussianRating(None, 2)
    with torch.no_grad():
        loss.log_slope.copy_(torch.tensor([0.0, math.log(0.5)]))
        loss.offset.copy_(torch.tensor([0.1, -0.4]))
        loss.log_spread.copy_(torch.tensor([0.2, -0.3]))
    ratings = {"item": torch.tensor([0, 1]), "aspect": torch.tensor([0, 1]), "z_score": torch.tensor([0.3, 0.9])}
    whole, aspects = torch.tensor([1.0, 2.0]), torch.tensor([[7.0, 8.0], [9.0, -3.0]])
    for scored, of_second in ((ScoredBatch(scores=whole), 2.0), (ScoredBatch(scores=whole, aspects=aspects), -3.0)):
        means, spreads = torch.tensor([1.0 + 0.1, 0.5 * of_second - 0.4]), torch.tensor([0.2, -0.3]).exp()
        expected = -torch.distributions.Normal(means, spreads).log_prob(ratings["z_score"])
        assert torch.allclose(loss(scored, batch_with(ratings=ratings))[0], expected)


def test_ratings_as_given_are_in_quarters_of_the_scale_from_its_middle(batch_with):
    batch = batch_with(ratings={"item": torch.tensor([0, 0]), "unit": torch.tensor([0.5, 1.0]), "z_score": torch.tensor([99.0, 99.0])})
    losses = GaussianRating(target="unit")(ScoredBatch(scores=torch.tensor([0.0])), batch)[0]
    assert losses.tolist() == pytest.approx([0.5 * math.log(2 * math.pi), 2.0 + 0.5 * math.log(2 * math.pi)])


def test_a_bias_shrinks_as_the_posterior_mean_of_a_normal_does(batch_with, minimised):
    """With slope, offset and spread held, a bias is n / (n + spread^2 / bias_spread^2) of the mean residual (closed form)."""
    counts, residual = [0, 50, 2], {1: 0.8, 2: -1.5}
    who = [1] * 50 + [2] * 2
    ratings = {
        "item": torch.zeros(52, dtype=torch.long),
        "z_score": torch.tensor([residual[a] for a in who]),
        "annotator": torch.tensor(who),
    }
    loss = GaussianRating(torch.tensor(counts), target="z_score", bias_spread=0.5)
    minimised([loss.annotator_offset.effects], lambda: loss(ScoredBatch(scores=torch.zeros(1)), batch_with(ratings=ratings))[0].mean())
    found = loss.annotator_offset(torch.tensor([0, 1, 2])).tolist()
    assert found == pytest.approx([0.0, *(residual[a] * counts[a] / (counts[a] + 1 / 0.25) for a in (1, 2))], abs=1e-4)


def test_who_rates_at_random_gets_a_wide_spread_and_who_uses_half_the_scale_a_small_slope(batch_with, minimised):
    generator = torch.Generator().manual_seed(0)
    scores, who = torch.randn(3000, generator=generator), torch.arange(3000) % 3 + 1
    noise = torch.randn(3000, generator=generator) * torch.tensor([0.0, 0.3, 0.3, 1.5])[who]
    said = scores * torch.tensor([0.0, 1.0, 0.5, 1.0])[who] + noise
    batch = batch_with(ratings={"item": torch.arange(3000), "z_score": said, "annotator": who})
    counts = torch.tensor([0.0, 1000.0, 1000.0, 1000.0])
    loss = GaussianRating(counts, slope_spread=1.0, annotator_noise="learned")
    minimised(list(loss.parameters()), lambda: loss(ScoredBatch(scores=scores), batch)[0].mean())
    people = torch.tensor([1, 2, 3])
    spread = (loss.log_spread + loss.annotator_log_spread(people)).exp().tolist()
    slope = (loss.log_slope + loss.annotator_log_slope(people)).exp().tolist()
    assert spread == pytest.approx([0.3, 0.3, 1.5], rel=0.1)
    assert slope == pytest.approx([1.0, 0.5, 1.0], abs=0.15)
