"""Fit the weights of a FeatureScore, exactly where there is a closed form, else to convergence.

Shapes: U texts, F features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.batch import JudgementBatch
from rlhf_lightning.feedback.judgements import Judgements, prompt_number
from rlhf_lightning.reward.regression.collation import collate_plain, select_judgements
from rlhf_lightning.reward.regression.family import PlainText
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.regression.solver import ROUGH, Gradient, adam, held_out_loss, intercept, ratings_only, solve
from rlhf_lightning.reward.regression.sparse import CentredMatrix

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Grid of `l2`, strongest first."""
FACTORS = (1000.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Grid of the factors on the penalty of a block, strongest first."""
ROUNDS = 3
"""Maximum rounds of the alternating search of factors and penalty."""


@dataclass
class Penalties:
    """The penalty of all features, the factors of blocks on it, and the held-out losses of the search.

    Attributes:
        tried: the held-out loss of each penalty in the search, at the best factors so far.
    """

    l2: float
    factors: dict[str, float] = field(default_factory=dict)
    tried: dict[float, float] = field(default_factory=dict)

    def __str__(self) -> str:
        factors = "".join(f", that of {name} x {factor:g}" for name, factor in self.factors.items())
        return f"penalty {self.l2:g}{factors}"

    def per_feature(self, blocks: Mapping[str, Tensor], width: int) -> Tensor:
        """The penalty of each feature [F], from the columns of each block."""
        penalty = torch.full((width,), self.l2, dtype=torch.float64)
        for name, factor in self.factors.items():
            penalty[blocks[name]] *= factor
        return penalty


def prompt_folds(texts: Sequence[PlainText], folds: int) -> list[Tensor]:
    """Masks [U] of folds of about equal size without a common prompt, independent of the texts' order.

    If one prompt has more than a fold's share of the texts (or all are empty), without a common response instead.
    """
    numbers = [prompt_number(prompt) for prompt, _ in texts]
    if max(Counter(numbers).values()) > len(texts) / folds:
        numbers = [prompt_number(response) for _, response in texts]
    sizes = Counter(numbers)
    filled, part = [0] * folds, dict[int, int]()
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        part[number] = filled.index(min(filled))
        filled[part[number]] += sizes[number]
    fold = torch.tensor([part[number] for number in numbers])
    return [fold == i for i in range(folds)]


class CrossValidation:
    """Held-out losses of penalties, over folds of the texts.

    Args:
        matrix: the standardised features of all texts.
        folds: masks [U] of the held-out texts of each fold.
        blocks: the columns of each block with a factor on the penalty, by name.
    """

    def __init__(
        self,
        matrix: CentredMatrix,
        batch: JudgementBatch,
        losses: Sequence[nn.Module],
        folds: Sequence[Tensor],
        blocks: Mapping[str, Tensor],
    ) -> None:
        sides = [(select_judgements(batch, ~held_out), select_judgements(batch, held_out)) for held_out in folds]
        self.sides = [(training, held_out) for training, held_out in sides if len(training) and len(held_out)]
        self.matrix, self.losses, self.blocks = matrix, losses, blocks
        self.weights = [torch.zeros(matrix.width, dtype=torch.float64) for _ in self.sides]
        self.best_weight = torch.zeros(matrix.width, dtype=torch.float64)
        self.best_loss = float("inf")

    def choose(self) -> Penalties:
        """Search for the least held-out loss: the penalty from the strongest down, then the factors too."""
        middle = PENALTIES[len(PENALTIES) // 2]
        best = Penalties(middle if not self.sides else PENALTIES[0], dict.fromkeys(self.blocks, 1.0))
        if not self.sides:
            return best
        best.tried[best.l2] = self._loss(best)
        best = self._walk(best, None, PENALTIES, (1,))
        for _ in range(ROUNDS if self.blocks else 0):
            before = (best.l2, dict(best.factors))
            for name in self.blocks:
                best = self._walk(best, name, FACTORS, (1, -1))
            best = self._walk(best, None, PENALTIES, (1, -1))
            if (best.l2, best.factors) == before:
                break
        return best

    def _walk(self, best: Penalties, block: str | None, grid: Sequence[float], directions: Sequence[int]) -> Penalties:
        """Move the penalty, or a block's factor, along its grid while the held-out loss falls."""
        for direction in directions:
            at = grid.index(best.l2 if block is None else best.factors[block]) + direction
            while 0 <= at < len(grid):
                l2 = grid[at] if block is None else best.l2
                factors = best.factors if block is None else {**best.factors, block: grid[at]}
                candidate = Penalties(l2, factors, best.tried)
                lowest = self.best_loss
                loss = self._loss(candidate)
                if block is None:
                    best.tried[l2] = loss
                if loss >= lowest:
                    break
                best, at = candidate, at + direction
        return best

    def _loss(self, penalties: Penalties) -> float:
        """The mean held-out loss; stores the folds' mean weights if it is the least so far."""
        penalty = penalties.per_feature(self.blocks, self.matrix.width)
        total = mass = 0.0
        for i, (training, held_out) in enumerate(self.sides):
            self.weights[i], trained = solve(self.matrix, training, self.losses, penalty, self.weights[i], ROUGH)
            with torch.no_grad():
                loss, weights = held_out_loss(self.matrix.matvec(self.weights[i]), training, held_out, trained)
            total, mass = total + float(loss), mass + float(weights)
        mean = total / max(mass, 1e-12)
        if mean < self.best_loss:
            self.best_loss, self.best_weight = mean, torch.stack(self.weights).mean(0)
        return mean


def fit_feature_score(
    score: FeatureScore,
    judged: Judgements,
    losses: Sequence[nn.Module],
    *,
    l2: float | None = None,
    folds: int = 3,
    solver: Literal["closed_form", "gradient"] = "closed_form",
    gradient: Gradient | None = None,
) -> Penalties:
    """Fit features, standardisation and weights of `score` to the judgements.

    The objective is the weighted mean of the judgements' losses + l2 / 2 * |w|². For ratings alone it is a ridge regression of the
    z-scores with an intercept, solved exactly. Otherwise the losses of reward_loss, with their parameters, are minimised by full-batch
    L-BFGS, and the bias makes the mean score of the training texts 0.

    Args:
        losses: each takes scores [U] and a batch and returns losses and weights; their parameters stay unchanged.
        l2: the penalty; None chooses it by cross-validation over the prompts (by the held-out losses, always in
            closed form), with a factor on it for each block family (`FeatureFamily.is_block`).
        folds: of the cross-validation.
        solver: "closed_form" as above, deterministic; "gradient" Adam on minibatches of the same objective.

    Returns:
        The penalties; with `l2` given, without losses of a search.

    Raises:
        DataError: no judgements, or no feature varies.
    """
    batch, texts = collate_plain(judged)
    if not len(batch):
        raise DataError("no judgement to learn from")
    matrix = CentredMatrix(score.prepare(texts), score.centre)
    start, blocks = torch.zeros_like(score.weight), score.blocks()
    if l2 is None:
        search = CrossValidation(matrix, batch, losses, prompt_folds(texts, folds), blocks)
        penalties = search.choose()
        start = search.best_weight
    else:
        penalties = Penalties(l2)
    penalty = penalties.per_feature(blocks, matrix.width)
    if solver == "gradient":
        score.weight = adam(matrix, batch, losses, penalty, gradient or Gradient())
    else:
        score.weight = solve(matrix, batch, losses, penalty, start)[0]
    centred = matrix.matvec(score.weight)
    score.bias = intercept(batch, centred) if ratings_only(batch) else -float(centred.mean())
    return penalties
