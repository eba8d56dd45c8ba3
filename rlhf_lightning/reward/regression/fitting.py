"""Fit the weights of a FeatureScore, exactly where there is a closed form, else to convergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.judgements import Judgements
from rlhf_lightning.reward.regression.collation import collate_plain
from rlhf_lightning.reward.regression.cross_validation import CrossValidation, Penalties, prompt_folds
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.regression.solver import Gradient, adam, intercept, ratings_only, solve
from rlhf_lightning.reward.regression.sparse import CentredMatrix


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
