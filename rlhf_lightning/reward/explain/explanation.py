"""Explanation of a reward model's score of a text, and of its preference between two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rlhf_lightning.feedback.judgements import PromptResponse
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.reward.explain.attribution import Baseline, integrated_gradients
from rlhf_lightning.reward.explain.score_regression import ScoreRegression, standardised_features
from rlhf_lightning.reward.explain.view import OcclusionMethod, PlainView, TokenView, View
from rlhf_lightning.reward.explain.words import TextPart
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.regression.feature_score import FeatureScore, Reason
from rlhf_lightning.statistics.ranks import rank_correlation


@dataclass(frozen=True)
class Occlusion:
    """The drop of the score without the words first:end of the view."""

    first: int
    end: int
    drop: float


def occlusions(view: View, score: float, method: OcclusionMethod = "remove", max_occlusions: int = 64) -> list[Occlusion]:
    """The drops of the score without each word, or each run of words.

    Args:
        score: of the full text, normalised.
        method: "remove" takes the words out of the text, "replace" puts `neutral_token` in the place of each token.
        max_occlusions: of more words, runs of several are removed at a time.
    """
    count = len(view.words)
    run_length = -(-count // max_occlusions) if count else 1
    runs = [range(first, min(first + run_length, count)) for first in range(0, count, run_length)]
    scores = view.scores_without(runs, method)
    return [Occlusion(run.start, run.stop, score - other) for run, other in zip(runs, scores.tolist(), strict=True)]


def rank_agreement(contributions: Sequence[float], drops: Sequence[Occlusion]) -> float | None:
    """Spearman's correlation of the contributions with the drops; None for fewer than three or constants."""
    if len(drops) < 3:
        return None
    ours = np.array([sum(contributions[run.first : run.end]) for run in drops])
    return rank_correlation(ours, np.array([run.drop for run in drops]))


@dataclass(frozen=True)
class Trajectory:
    """The score of each beginning of the response as a complete one.

    Attributes:
        words: number of words of each beginning, from 0 to all. scores: normalised.
    """

    words: list[int]
    scores: list[float]


def trajectory(view: View, points: int = 33) -> Trajectory:
    """The scores of at most `points` beginnings of the response, equally spaced in words.

    The empty and the full response are included. Each is scored as a complete response, with the end-of-text after it: a beginning that
    breaks off inside a sentence may score low, since models aren't trained on such texts.
    """
    count = sum(word.part == "response" for word in view.words)
    steps = min(count, max(points, 2) - 1)
    counts = sorted({round(count * step / steps) for step in range(steps + 1)}) if steps else [0]
    return Trajectory(counts, view.scores_until(counts).tolist())


@dataclass(frozen=True)
class ExplainSettings:
    """Settings of an explanation; see stage.explain."""

    baseline: Baseline = "neutral"
    tolerance: float = 1e-3
    max_steps: int = 1024
    occlusion: OcclusionMethod = "remove"
    max_occlusions: int = 64
    points: int = 33


@dataclass(frozen=True)
class WordShare:
    """text[start:end] of the prompt or response, and its contribution to the score."""

    part: TextPart
    start: int
    end: int
    text: str
    contribution: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A score and its reasons, all in units of the normalised score.

    Attributes:
        words: with integrated gradients score = baseline_score + sum of contributions, but for `gap`; without tokens (features) a
            word's contribution is its occlusion, and the sum may differ.
        baseline_score, gap, steps, is_complete: of the integrated gradients; None without.
        occlusions: the drops of the score without words. agreement: their rank correlation with the contributions, if it is defined.
        trajectory: the score of each beginning of the response.
        bias, reasons: for a features model score = bias + sum of contributions, exactly; else None and empty.
        is_truncated: the text is longer than the model reads.
    """

    prompt: str
    response: str
    score: float
    words: list[WordShare]
    occlusions: list[Occlusion]
    trajectory: Trajectory
    baseline_score: float | None = None
    gap: float | None = None
    steps: int | None = None
    is_complete: bool | None = None
    agreement: float | None = None
    bias: float | None = None
    reasons: list[Reason] = field(default_factory=list)
    is_truncated: bool = False


def explain_text(model: RewardModel | FeatureScore, text: PromptResponse, settings: ExplainSettings) -> Explanation:
    """Explain the score of one text."""
    if isinstance(model, FeatureScore):
        return _by_features(model, text, settings)
    view = TokenView(model, text)
    attribution = integrated_gradients(model, view.tokens, view.fixed, settings.baseline, settings.tolerance, settings.max_steps)
    shares = [float(attribution.tokens[list(word.tokens)].sum()) for word in view.words]
    drops = occlusions(view, attribution.score, settings.occlusion, settings.max_occlusions)
    return Explanation(
        prompt=view.prompt,
        response=view.response,
        score=attribution.score,
        words=_word_shares(view, shares),
        occlusions=drops,
        trajectory=trajectory(view, settings.points),
        baseline_score=attribution.baseline_score,
        gap=attribution.gap,
        steps=attribution.steps,
        is_complete=attribution.is_complete,
        agreement=rank_agreement(shares, drops),
        is_truncated=view.is_truncated,
    )


def _by_features(model: FeatureScore, text: PromptResponse, settings: ExplainSettings) -> Explanation:
    view = PlainView(model, text)
    score = float(model.score_texts([view.prompt], [view.response]))
    drops = occlusions(view, score, settings.occlusion, settings.max_occlusions)
    shares = [run.drop / (run.end - run.first) for run in drops for _ in range(run.first, run.end)]
    bias, reasons = model.explain(view.prompt, view.response)
    return Explanation(
        prompt=view.prompt,
        response=view.response,
        score=score,
        words=_word_shares(view, shares),
        occlusions=drops,
        trajectory=trajectory(view, settings.points),
        bias=bias,
        reasons=reasons,
    )


def _word_shares(view: View, shares: Sequence[float]) -> list[WordShare]:
    texts = {"prompt": view.prompt, "response": view.response}
    return [
        WordShare(word.part, word.start, word.end, texts[word.part][word.start : word.end], share)
        for word, share in zip(view.words, shares, strict=True)
    ]


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
