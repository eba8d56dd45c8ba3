"""Explanation of a reward model's score of a text: words, features, and the score along the response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf_lightning.feedback.judgements import PromptResponse
from rlhf_lightning.reward.explain.attribution import Baseline, integrated_gradients
from rlhf_lightning.reward.explain.occlusion import Occlusion, occlusions, rank_agreement
from rlhf_lightning.reward.explain.trajectory import Trajectory, trajectory
from rlhf_lightning.reward.explain.view import OcclusionMethod, PlainView, TokenView, View
from rlhf_lightning.reward.explain.words import TextPart
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.regression.feature_score import FeatureScore, Reason


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
