"""Weights of a linear score under a penalty: by ridge regression, L-BFGS or Adam.

Shapes: U texts, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import diags_array
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor, nn

from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.reward.components import LearnsSlope, ScoredBatch
from rlhf_lightning.reward.regression.collation import minibatches
from rlhf_lightning.reward.regression.sparse import CentredMatrix

DENSE = 1000
"""Number of features up to which the system is solved by Cholesky; beyond, by conjugate gradients."""


def ridge(matrix: CentredMatrix, mass: Tensor, target: Tensor, penalty: Tensor, start: Tensor, tolerance: float = 1e-10) -> Tensor:
    """The w [F] that minimises sum of mass (y - b - phi·w)² / 2 + sum of penalty w² / 2, b being free.

    Args:
        mass: [U] weights of the texts, with sum 1. target: [U] mass * y. penalty: [F].
        start, tolerance: first w and relative residual of conjugate gradients.
    """
    right = matrix.rmatvec(target - mass * target.sum())

    def normal_product(w: Tensor) -> Tensor:
        scores = matrix.matvec(w)
        return matrix.rmatvec(mass * (scores - mass @ scores)) + penalty * w

    if matrix.width > DENSE:
        # The clamp is for a constant column without a penalty.
        return _conjugate_gradients(normal_product, right, (matrix.variances(mass) + penalty).clamp(min=1e-12), start, tolerance)
    rows = matrix.dense()
    rows = rows - mass @ rows
    gram = rows.T @ (mass[:, None] * rows) + torch.diag(penalty)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):  # collinear features without a penalty have many solutions: take the smallest
        smallest: Tensor = torch.linalg.lstsq(gram, right[:, None], driver="gelsd").solution[:, 0]
        return smallest
    return torch.cholesky_solve(right[:, None], factor)[:, 0]


def _conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, diagonal: Tensor, start: Tensor, tolerance: float) -> Tensor:
    """Solve product(w) = right, a symmetric positive system, to a relative residual of `tolerance`.

    The system's diagonal is the preconditioner: rare words would take many steps otherwise.
    """
    size = len(right)
    operator = LinearOperator((size, size), matvec=lambda w: product(torch.from_numpy(w)).numpy(), dtype=np.float64)
    solution, _ = cg(operator, right.numpy(), start.numpy(), rtol=tolerance, atol=0.0, M=diags_array(1 / diagonal.numpy()))
    return torch.from_numpy(solution)


EXACT, ROUGH = 1e-8, 1e-5
"""Tolerances of the final weights and of the search for a penalty: L-BFGS's largest slope, a ridge regression's residual."""


@dataclass(frozen=True)
class Gradient:
    """Adam on minibatches of judgements, instead of the closed form or the full batch."""

    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 0.01
    seed: int = 0


def solve(
    matrix: CentredMatrix, batch: JudgementBatch, losses: Sequence[nn.Module], penalty: Tensor, start: Tensor, tolerance: float = EXACT
) -> tuple[Tensor, Sequence[nn.Module]]:
    """Minimise the losses under a penalty [F]; return the weights [F] and trained copies of the losses."""
    if ratings_only(batch):
        return ridge(matrix, *_mass_and_target(batch, matrix.size), penalty, start, tolerance), []
    trained = [copy.deepcopy(loss).double() for loss in losses]
    # In these units every weight has a curvature of about 1; rare words would take many steps otherwise.
    mass = torch.full((matrix.size,), 1 / matrix.size, dtype=torch.float64)
    unit = (matrix.variances(mass) / 4 + penalty).clamp(min=1e-12).rsqrt()
    scaled = (start / unit).requires_grad_()
    parameters = [scaled, *(p for loss in trained for p in loss.parameters() if p.requires_grad)]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=tolerance, tolerance_change=1e-12, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        objective = _objective(matrix, scaled * unit, trained, batch, penalty)
        torch.autograd.backward(objective)
        return float(objective.detach())

    optimizer.step(closure)
    return scaled.detach() * unit, trained


def adam(matrix: CentredMatrix, batch: JudgementBatch, losses: Sequence[nn.Module], penalty: Tensor, gradient: Gradient) -> Tensor:
    """The weights [F] after epochs of Adam on the objective of `solve`, with linear decay of the rate."""
    trained = [_SquaredError()] if ratings_only(batch) else [copy.deepcopy(loss).double() for loss in losses]
    weight = torch.zeros(matrix.width, dtype=torch.float64, requires_grad=True)
    parameters = [weight, *(p for loss in trained for p in loss.parameters() if p.requires_grad)]
    optimizer = torch.optim.Adam(parameters, lr=gradient.learning_rate)
    generator = torch.Generator().manual_seed(gradient.seed)
    steps = -(-len(batch) // gradient.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (gradient.epochs * steps))
    for _ in range(gradient.epochs):
        for part in minibatches(batch, steps, generator):
            optimizer.zero_grad()
            torch.autograd.backward(_objective(matrix, weight, trained, part, penalty))
            optimizer.step()
            schedule.step()
    return weight.detach()


def held_out_loss(
    scores: Tensor, training: JudgementBatch, held_out: JudgementBatch, trained: Sequence[nn.Module]
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the losses on held-out judgements, and the sum of their weights.

    Args:
        scores: [U], of all texts. trained: the losses that `solve` returned.
    """
    if not ratings_only(training):
        return total_loss(trained, scores, held_out)
    ratings = held_out.ratings
    errors = ratings.z_score - scores[ratings.item] - intercept(training, scores)
    return (ratings.weight * errors**2).sum() / 2, ratings.weight.sum()


def total_loss(losses: Sequence[nn.Module], scores: Tensor, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
    """The weighted sum of all losses, and the sum of the weights."""
    terms = [loss(ScoredBatch(scores=scores), batch) for loss in losses]
    return torch.stack([(loss * weights).sum() for loss, weights in terms]).sum(), torch.stack([w.sum() for _, w in terms]).sum()


def ratings_only(batch: JudgementBatch) -> bool:
    """All judgements are ratings, the case that ridge regression solves exactly."""
    return len(batch.ratings) == len(batch)


def intercept(batch: JudgementBatch, scores: Tensor) -> float:
    """The weighted mean difference of the z-scores and the scores [U]."""
    ratings = batch.ratings
    return float((ratings.weight * (ratings.z_score - scores[ratings.item])).sum() / ratings.weight.sum().clamp(min=1e-12))


class _SquaredError(nn.Module):
    """The loss of the ridge regression for minibatches: half the squared error around score + offset."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(0.0))

    def forward(self, scored: ScoredBatch, batch: JudgementBatch) -> tuple[Tensor, Tensor]:
        return (batch.ratings.z_score - scored.scores[batch.ratings.item] - self.offset) ** 2 / 2, batch.ratings.weight


def _objective(matrix: CentredMatrix, weight: Tensor, losses: Sequence[nn.Module], batch: JudgementBatch, penalty: Tensor) -> Tensor:
    """The mean loss plus the penalty in each loss's own unit.

    In one unit for all, small weights times a large learned slope would escape it.
    """
    total, weights = total_loss(losses, matrix.product(weight), batch)
    mass = weights.clamp(min=1e-12)
    return total / mass + _squared_slope(losses, batch, mass) * ((penalty * weight) @ weight) / 2


def _squared_slope(losses: Sequence[nn.Module], batch: JudgementBatch, mass: Tensor) -> Tensor:
    """Weighted mean square of the slopes of the score, 1 for losses of log-odds."""
    slopes = [(loss.slopes(batch), batch.ratings.weight) for loss in losses if isinstance(loss, LearnsSlope)]
    return 1 + torch.stack([torch.zeros_like(mass), *((weight * (slope**2 - 1)).sum() / mass for slope, weight in slopes)]).sum()


def _mass_and_target(batch: JudgementBatch, texts: int) -> tuple[Tensor, Tensor]:
    """Each text's share of the total weight, and that share times its mean rating, [U]."""
    ratings = batch.ratings
    share = ratings.weight / ratings.weight.sum().clamp(min=1e-12)
    zeros = torch.zeros(texts, dtype=torch.float64)
    return zeros.index_add(0, ratings.item, share), zeros.index_add(0, ratings.item, share * ratings.z_score)
