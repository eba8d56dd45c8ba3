"""Laplace posterior of a linear score's weights, and the information of a further comparison.

Shapes: P candidate pairs, C comparisons, D features. Everything is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)
"""Added to the diagonal in turn, relative to its mean, until the Cholesky factorisation succeeds."""
NODES, WEIGHTS = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(16))
EVIDENCE_STEPS = 20


class Posterior:
    """N(w, H^-1) around the maximum a posteriori, with H = precision * I + sum of information * d d^T.

    Args:
        differences: [C, D] d = phi(a) - phi(b) of the comparisons. scores: [C] w·d, in log-odds.
        precision: of the prior of the weights.
        error_rate: share of answers at random.

    Attributes:
        covariance: [D, D] H^-1.
    """

    def __init__(self, differences: Tensor, scores: Tensor, precision: float, error_rate: float = 0.0) -> None:
        weighted = differences * information(scores, error_rate)[:, None]
        matrix = differences.T @ weighted
        matrix.diagonal().add_(precision)
        self._factor = cholesky(matrix)
        self.covariance = torch.cholesky_inverse(self._factor)

    def samples(self, count: int, generator: torch.Generator) -> Tensor:
        """Deviations [count, D] of the weights from their mode, before any `observe`."""
        normal = torch.randn(self._factor.shape[0], count, generator=generator, dtype=torch.float64)
        deviations: Tensor = torch.linalg.solve_triangular(self._factor.T, normal, upper=True).T
        return deviations

    def predict(self, differences: Tensor, target: Tensor | None = None) -> Predictions:
        """Predict score differences; `observe` keeps the predictions up to date.

        Args:
            target: [D, D] sum of information * d d^T over the pairs that matter; None counts the pairs themselves.
        """
        through = differences @ self.covariance
        relevances = None if target is None else ((through @ target) * through).sum(1)
        return Predictions(differences, (through * differences).sum(1), target, relevances)

    def observe(self, difference: Tensor, weight: float, predictions: Predictions) -> None:
        """Add a comparison of information `weight` by Sherman and Morrison's formula."""
        direction = self.covariance @ difference
        scale = weight / (1 + weight * float(difference @ direction))
        covariances = predictions.differences @ direction
        if predictions.target is not None and predictions.relevances is not None:
            toward = predictions.target @ direction
            crossed = predictions.differences @ (self.covariance @ toward)
            change = scale * covariances * (scale * float(direction @ toward) * covariances - 2 * crossed)
            predictions.relevances.add_(change).clamp_(min=0)
        predictions.variances.sub_(scale * covariances**2).clamp_(min=0)
        self.covariance.addr_(direction, direction, alpha=-scale)


@dataclass
class Predictions:
    """Score differences under a posterior.

    Attributes:
        differences: [P, D]. variances: [P] d^T H^-1 d.
        relevances: [P] d^T H^-1 T H^-1 d with the target T: sum of the squared covariances with the pairs that matter, by their
            information; None without a target.
    """

    differences: Tensor
    variances: Tensor
    target: Tensor | None = None
    relevances: Tensor | None = None


def cholesky(matrix: Tensor) -> Tensor:
    """The lower factor [D, D] of a positive matrix, with the smallest jitter that is enough.

    Raises:
        ValueError: it isn't positive definite, or not finite.
    """
    unit = float(matrix.diagonal().mean())
    for jitter in JITTERS:
        jittered = matrix.clone()
        jittered.diagonal().add_(jitter * unit)
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(jittered)
        if not int(failed):
            return factor
    raise ValueError("the precision matrix of the features is not positive definite: they contain NaN or infinite values")


def choice_probability(scores: Tensor, error_rate: float = 0.0) -> Tensor:
    """P(the first is chosen) = (1 - e) sigmoid(score difference) + e / 2."""
    return (1 - error_rate) * torch.sigmoid(scores) + error_rate / 2


def information(scores: Tensor, error_rate: float = 0.0) -> Tensor:
    """Fisher information of an answer about the score difference; p (1 - p) without errors."""
    slope = (1 - error_rate) * torch.sigmoid(scores) * torch.sigmoid(-scores)
    probability = choice_probability(scores, error_rate)
    return slope**2 / (probability * (1 - probability)).clamp(min=1e-12)


def binary_entropy(probability: Tensor) -> Tensor:
    """Entropy in nats."""
    entropy: Tensor = torch.special.entr(probability) + torch.special.entr(1 - probability)
    return entropy


def mutual_information(scores: Tensor, variances: Tensor, error_rate: float = 0.0) -> Tensor:
    """BALD [P] of Gaussian score differences, the information in nats of an answer about w.

    By Gauss-Hermite quadrature. Source: N. Houlsby et al., "Bayesian active learning for classification and preference learning", 2011
    (arXiv 1112.5745).
    """
    samples = scores[:, None] + variances.clamp(min=0).sqrt()[:, None] * NODES
    return member_information(samples.T, WEIGHTS / WEIGHTS.sum(), error_rate)


def member_information(members: Tensor, weights: Tensor | None = None, error_rate: float = 0.0) -> Tensor:
    """BALD [P] from the score differences [M, P] of members of weights [M], alike by default."""
    if weights is None:
        weights = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
    probability = choice_probability(members, error_rate)
    return (binary_entropy(weights @ probability) - weights @ binary_entropy(probability)).clamp(min=0)


def evidence_precision(differences: Tensor, scores: Tensor, weight: Tensor) -> float:
    """The precision of the prior by MacKay's fixed point for the evidence, gamma / |w|².

    Source: D. J. C. MacKay, "Bayesian interpolation", 1992. gamma is the number of weights that the comparisons determine.

    Args:
        differences: [C, D]. scores: [C]. weight: [D], of which the scores are w·d.
    """
    squared = float(weight @ weight)
    if squared == 0 or not len(differences):
        return prior_precision(differences)
    eigenvalues = torch.linalg.eigvalsh(differences.T @ (differences * information(scores)[:, None])).clamp(min=0)
    precision = len(weight) / squared
    for _ in range(EVIDENCE_STEPS):
        precision = max(float((eigenvalues / (eigenvalues + precision)).sum()) / squared, 1e-6)
    return precision


def prior_precision(differences: Tensor, deviation: float = 2.0) -> float:
    """The prior's precision at which score differences have this standard deviation, in log-odds."""
    mean_square = float((differences**2).sum(1).mean()) if len(differences) else 0.0
    return mean_square / deviation**2 if mean_square > 0 and math.isfinite(mean_square) else 1.0


def likeliest_error_rate(scores: Tensor) -> float:
    """The share of random answers, 0 to 0.9, under which the answers are likeliest.

    Args:
        scores: [C] of the better responses less the worse ones'.
    """
    if not len(scores):
        return 0.0
    rates = torch.linspace(0, 0.9, 91, dtype=torch.float64)
    likelihoods = torch.stack([choice_probability(scores, float(rate)).clamp(min=1e-300).log().sum() for rate in rates])
    return float(rates[likelihoods.argmax()])
