"""Fits the weights of a FeatureScore: exactly where there is a closed form, else to convergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.judgements import Judgements
from rlhf_lightning.reward.regression.collation import collated
from rlhf_lightning.reward.regression.cross_validation import CrossValidation, Penalties, prompt_folds
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.regression.solver import Gradient, adam, intercept, ratings_only, solve
from rlhf_lightning.reward.regression.sparse import Linear


def fit(
    score: FeatureScore,
    judged: Judgements,
    losses: Sequence[nn.Module],
    *,
    l2: float | None = None,
    folds: int = 3,
    solver: Literal["closed_form", "gradient"] = "closed_form",
    gradient: Gradient | None = None,
) -> Penalties:
    """Learn features, standardisation and weights of `score` from the judgements.

    It minimises the weighted mean of the judgements' losses + l2 / 2 * |w|². Ratings alone are a ridge regression with an intercept, half
    the squared error of the z-scores for loss, solved exactly. Any other kinds, and ratings among them, have the losses of reward_loss,
    minimised with their own parameters by L-BFGS over the whole batch; the bias then makes the mean score of the training texts 0.

    Args:
        losses: each takes scores [U] and a batch and returns losses and weights; their parameters are left as they are.
        l2: the penalty; None chooses it by cross-validation over the prompts (the losses of those left out, in closed form always),
            and with it a factor on it for each family that asks for one (`Family.is_block`).
        folds: of the cross-validation.
        solver: "closed_form" as above, deterministic; "gradient" Adam on minibatches of the same objective.

    Returns:
        The penalties. A penalty that was given has tried nothing.

    Raises:
        DataError: no judgements, or no feature varies.
    """
    batch, texts = collated(judged)
    if not len(batch):
        raise DataError("no judgement to learn from")
    linear = Linear(score.prepare(texts), score.centre)
    start, blocks = torch.zeros_like(score.weight), score.blocks()
    if l2 is None:
        search = CrossValidation(linear, batch, losses, prompt_folds(texts, folds), blocks)
        penalties = search.choose()
        start = search.best_weight
    else:
        penalties = Penalties(l2)
    penalty = penalties.per_feature(blocks, linear.width)
    if solver == "gradient":
        score.weight = adam(linear, batch, losses, penalty, gradient or Gradient())
    else:
        score.weight = solve(linear, batch, losses, penalty, start)[0]
    centred = linear.forward(score.weight)
    score.bias = intercept(batch, centred) if ratings_only(batch) else -float(centred.mean())
    return penalties
