"""Why a reward model prefers one text to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlhf_lightning.feedback.judgements import Text
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.reward.explain.explanation import Explanation, Settings, explained
from rlhf_lightning.reward.explain.regression import Regression, standardised_features
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.regression.feature_score import FeatureScore, Reason


@dataclass(frozen=True)
class Difference:
    """What a feature says about two texts: its values in each, and what it adds to the difference of their scores."""

    name: str
    first: float
    second: float
    contribution: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Why the first text scores higher than the second by score(first) - score(second), or lower.

    Attributes:
        features: the features in which they differ, the most telling first. is_exact: the contributions add up to the difference of the
            scores (a features model); else they are those of the data set's regression, and `unexplained` is what it leaves.
    """

    first: Explanation
    second: Explanation
    features: list[Difference]
    is_exact: bool
    unexplained: float | None

    @property
    def difference(self) -> float:
        return self.first.score - self.second.score


def compared(
    model: RewardModel | FeatureScore, first: Text, second: Text, settings: Settings, regression: Regression | None = None
) -> Comparison:
    """Explain why one text scores higher than another.

    Args:
        regression: which features explain this model's scores; without it only a features model's differences are known.
    """
    a, b = explained(model, first, settings), explained(model, second, settings)
    if isinstance(model, FeatureScore):
        return Comparison(first=a, second=b, features=_exact(a, b), is_exact=True, unexplained=None)
    if regression is None:
        return Comparison(first=a, second=b, features=[], is_exact=False, unexplained=None)
    values, standardised = standardised_features(regression, [(prompt_text(first[0]), first[1]), (prompt_text(second[0]), second[1])])
    pull = torch.tensor([effect.slope for effect in regression.effects], dtype=torch.float64) * (standardised[0] - standardised[1])
    rows = zip(regression.effects, *values.tolist(), pull.tolist(), strict=True)
    found = [Difference(effect.name, in_first, in_second, added) for effect, in_first, in_second, added in rows]
    unexplained = a.score - b.score - sum(one.contribution for one in found)
    return Comparison(first=a, second=b, features=_told(found), is_exact=False, unexplained=unexplained)


def _exact(first: Explanation, second: Explanation) -> list[Difference]:
    """A features model's own reasons, the second's taken from the first's. What one of them doesn't name is 0 there."""
    nothing = Reason("", 0.0, 0.0, 0.0)
    a, b = ({reason.name: reason for reason in one.reasons} for one in (first, second))
    both = [(name, a.get(name, nothing), b.get(name, nothing)) for name in dict.fromkeys([*a, *b])]
    return _told([Difference(name, x.value, y.value, x.contribution - y.contribution) for name, x, y in both])


def _told(found: Sequence[Difference]) -> list[Difference]:
    return sorted((one for one in found if one.first != one.second), key=lambda one: -abs(one.contribution))
