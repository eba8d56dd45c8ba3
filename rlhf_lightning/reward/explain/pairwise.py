"""Explanation of a reward model's preference between two texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlhf_lightning.feedback.judgements import PromptResponse
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.reward.explain.explanation import ExplainSettings, Explanation, explain_text
from rlhf_lightning.reward.explain.score_regression import ScoreRegression, standardised_features
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.regression.feature_score import FeatureScore, Reason


@dataclass(frozen=True)
class FeatureDifference:
    """A feature's values in two texts, and its contribution to the difference of their scores."""

    name: str
    first: float
    second: float
    contribution: float


@dataclass(frozen=True, kw_only=True)
class PairExplanation:
    """Explanation of score(first) - score(second).

    Attributes:
        features: the features that differ, largest contribution first. is_exact: the contributions add up to the difference of the
            scores (a FeatureScore); else they are those of the data set's regression, and `unexplained` is the rest.
    """

    first: Explanation
    second: Explanation
    features: list[FeatureDifference]
    is_exact: bool
    unexplained: float | None

    @property
    def difference(self) -> float:
        return self.first.score - self.second.score


def explain_pair(
    model: RewardModel | FeatureScore,
    first: PromptResponse,
    second: PromptResponse,
    settings: ExplainSettings,
    regression: ScoreRegression | None = None,
) -> PairExplanation:
    """Explain the difference of two texts' scores.

    Args:
        regression: of this model's scores on features; without it only a FeatureScore has features.
    """
    a, b = explain_text(model, first, settings), explain_text(model, second, settings)
    if isinstance(model, FeatureScore):
        return PairExplanation(first=a, second=b, features=_exact(a, b), is_exact=True, unexplained=None)
    if regression is None:
        return PairExplanation(first=a, second=b, features=[], is_exact=False, unexplained=None)
    values, standardised = standardised_features(regression, [(prompt_text(first[0]), first[1]), (prompt_text(second[0]), second[1])])
    pull = torch.tensor([effect.slope for effect in regression.effects], dtype=torch.float64) * (standardised[0] - standardised[1])
    rows = zip(regression.effects, *values.tolist(), pull.tolist(), strict=True)
    differences = [FeatureDifference(effect.name, in_first, in_second, added) for effect, in_first, in_second, added in rows]
    unexplained = a.score - b.score - sum(difference.contribution for difference in differences)
    return PairExplanation(first=a, second=b, features=_differing(differences), is_exact=False, unexplained=unexplained)


def _exact(first: Explanation, second: Explanation) -> list[FeatureDifference]:
    """The difference of a FeatureScore's reasons; features without a reason are 0."""
    nothing = Reason("", 0.0, 0.0, 0.0)
    a, b = ({reason.name: reason for reason in side.reasons} for side in (first, second))
    both = [(name, a.get(name, nothing), b.get(name, nothing)) for name in dict.fromkeys([*a, *b])]
    return _differing([FeatureDifference(name, x.value, y.value, x.contribution - y.contribution) for name, x, y in both])


def _differing(differences: Sequence[FeatureDifference]) -> list[FeatureDifference]:
    """The features that differ, largest contribution first."""
    return sorted((x for x in differences if x.first != x.second), key=lambda x: -abs(x.contribution))
