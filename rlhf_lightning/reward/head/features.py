"""Linear regression on named features, without a language model; scipy is imported when it's used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from rlhf_lightning.feedback.judgements import Judgements
from rlhf_lightning.registry import register

if TYPE_CHECKING:
    from rlhf_lightning.reward.regression.fitting import Penalties


@register("reward_head", "features", needs=["texts"])
class FeaturesHead:
    """The linear reward r = w·phi(x, y) on readable features (reward_feature), fitted in seconds.

    It needs no language model, and explains its scores exactly.

    Args:
        l2: penalty on the weights; null chooses it by cross-validation over the prompts.
        folds: number of parts of the cross-validation.
        solver: "closed_form": ratings alone are solved exactly, comparisons by L-BFGS to convergence; "gradient": Adam on minibatches.
        epochs, batch_size, learning_rate: passes over the data, rows of a step and Adam's learning rate, for solver=gradient.
        seed: random seed of the order of its minibatches.
    """

    def __init__(
        self,
        features: Mapping[str, Mapping[str, Any]],
        *,
        l2: NonNegativeFloat | None = None,
        folds: Annotated[int, Field(ge=2)] = 3,
        solver: Literal["closed_form", "gradient"] = "closed_form",
        epochs: PositiveInt = 20,
        batch_size: PositiveInt = 256,
        learning_rate: PositiveFloat = 0.01,
        seed: int = 0,
    ) -> None:
        from rlhf_lightning.reward.regression.feature_score import FeatureScore
        from rlhf_lightning.reward.regression.solver import Gradient

        self.score = FeatureScore(features)
        self.l2, self.folds, self.solver = l2, folds, solver
        self.gradient = Gradient(epochs, batch_size, learning_rate, seed)

    def fit(self, judged: Judgements, losses: Sequence[nn.Module]) -> Penalties:
        """Train `score` on the judgements."""
        from rlhf_lightning.reward.regression.fitting import fit_feature_score

        return fit_feature_score(self.score, judged, losses, l2=self.l2, folds=self.folds, solver=self.solver, gradient=self.gradient)
