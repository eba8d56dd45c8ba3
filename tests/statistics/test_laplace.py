"""The posterior of a linear score, and the information of comparisons."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.statistics.laplace import (
    Posterior,
    cholesky,
    evidence_precision,
    information,
    member_information,
    mutual_information,
    prior_precision,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full_inverse(differences: torch.Tensor, weights: torch.Tensor, precision: float) -> torch.Tensor:
    return torch.linalg.inv(
        precision * torch.eye(differences.shape[1], dtype=torch.float64) + differences.T @ (weights[:, None] * differences)
    )


def test_updates_equal_the_full_inverse():
    past, scores, candidates = normal(30, 8), normal(30, seed=1), normal(12, 8, seed=2)
    posterior = Posterior(past, scores, 0.3, 0.1)
    weights = information(normal(12, seed=3), 0.1)
    target = candidates.T @ (candidates * weights[:, None])
    predictions = posterior.predict(candidates, target)
    for i in range(12):
        before = predictions.variances.clone()
        posterior.observe(candidates[i], float(weights[i]), predictions)
        assert predictions.variances[i] < before[i]
        assert (predictions.variances <= before + 1e-12).all()
    expected = full_inverse(torch.cat([past, candidates]), torch.cat([information(scores, 0.1), weights]), 0.3)
    assert (posterior.covariance - expected).abs().max() < 1e-10
    assert (predictions.variances - torch.einsum("pd,de,pe->p", candidates, expected, candidates)).abs().max() < 1e-10
    covariances = candidates @ expected @ candidates.T
    assert (predictions.relevances - (covariances**2 * weights).sum(1)).abs().max() < 1e-10


def test_samples_have_the_posterior_covariance():
    posterior = Posterior(normal(30, 3), normal(30, seed=1), 0.5)
    samples = posterior.samples(200_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples.T.cov(), posterior.covariance, atol=0.003, rtol=0.03)


def test_information_is_the_slope_squared_over_the_variance():
    scores = torch.tensor([-3.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    probability = 0.8 * torch.sigmoid(scores) + 0.1
    (slope,) = torch.autograd.grad(probability.sum(), scores)
    torch.testing.assert_close(information(scores.detach(), 0.2), slope**2 / (probability * (1 - probability)).detach())
    torch.testing.assert_close(information(scores.detach()), (torch.sigmoid(scores) * torch.sigmoid(-scores)).detach())


@pytest.mark.parametrize("error_rate", [0.0, 0.3])
def test_quadrature_equals_many_samples(error_rate):
    scores, variances = torch.tensor([0.0, 1.5], dtype=torch.float64), torch.tensor([4.0, 0.5], dtype=torch.float64)
    samples = scores + variances.sqrt() * normal(400_000, 2)
    torch.testing.assert_close(
        mutual_information(scores, variances, error_rate), member_information(samples, error_rate=error_rate), atol=2e-3, rtol=0.01
    )


def test_errors_lower_the_information_of_near_ties():
    scores, variances = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert mutual_information(scores, variances, 0.4) < 0.5 * mutual_information(scores, variances)
    assert member_information(torch.zeros(3, 1, dtype=torch.float64)) == pytest.approx(0, abs=1e-12)
    opposite = torch.tensor([[50.0], [-50.0]], dtype=torch.float64)
    assert float(member_information(opposite)) == pytest.approx(math.log(2))


def test_a_singular_matrix_gets_jitter_and_nan_is_an_error():
    direction = normal(4)
    factor = cholesky(torch.outer(direction, direction))
    torch.testing.assert_close(factor @ factor.T, torch.outer(direction, direction), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="NaN"):
        cholesky(torch.full((2, 2), torch.nan, dtype=torch.float64))


def test_the_evidence_finds_the_precision_that_drew_the_weights():
    weight, differences = normal(40) / 2, normal(4000, 40, seed=1)
    assert evidence_precision(differences, differences @ weight, weight) == pytest.approx(4, rel=0.35)
    assert evidence_precision(differences[:0], differences[:0, 0], weight) == 1.0
    assert prior_precision(differences) == pytest.approx(10, rel=0.05)
