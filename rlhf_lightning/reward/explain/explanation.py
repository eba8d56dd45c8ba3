"""Why a reward model scores a text as it does: words, features, and the way along the response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf_lightning.feedback.judgements import Text
from rlhf_lightning.reward.explain.attribution import Baseline, integrated_gradients
from rlhf_lightning.reward.explain.occlusion import Occlusion, occlusions, rank_agreement
from rlhf_lightning.reward.explain.trajectory import Trajectory, trajectory
from rlhf_lightning.reward.explain.view import Occluded, PlainView, TokenView, View
from rlhf_lightning.reward.explain.words import Part
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.regression.feature_score import FeatureScore, Reason


@dataclass(frozen=True)
class Settings:
    """How much work an explanation is; see stage.explain."""

    baseline: Baseline = "neutral"
    tolerance: float = 1e-3
    most_steps: int = 1024
    occlusion: Occluded = "remove"
    most_occlusions: int = 64
    points: int = 33


@dataclass(frozen=True)
class WordShare:
    """text[start:end] of the prompt or response, and what it adds to the score."""

    part: Part
    start: int
    end: int
    text: str
    contribution: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A score and its reasons, all in units of the normalised score.

    Attributes:
        words: with integrated gradients score = baseline_score + sum of contributions, but for `gap`; without tokens (features) a word
            contributes what the score loses without it, which needn't add up.
        baseline_score, gap, steps, is_complete: of the integrated gradients; None without.
        occlusions: what the score loses without words. agreement: rank correlation of that with the contributions; None where it says
            nothing.
        trajectory: the score of each beginning of the response.
        bias, reasons: for a features model score = bias + sum of contributions, exactly; else None and empty.
        is_truncated: the model doesn't read all of the text.
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


def explained(model: RewardModel | FeatureScore, text: Text, settings: Settings) -> Explanation:
    """Explain the score of one text."""
    if isinstance(model, FeatureScore):
        return _by_features(model, text, settings)
    view = TokenView(model, text)
    found = integrated_gradients(model, view.tokens, view.fixed, settings.baseline, settings.tolerance, settings.most_steps)
    shares = [float(found.tokens[list(word.tokens)].sum()) for word in view.words]
    drops = occlusions(view, found.score, settings.occlusion, settings.most_occlusions)
    return Explanation(
        prompt=view.prompt,
        response=view.response,
        score=found.score,
        words=_named(view, shares),
        occlusions=drops,
        trajectory=trajectory(view, settings.points),
        baseline_score=found.baseline_score,
        gap=found.gap,
        steps=found.steps,
        is_complete=found.is_complete,
        agreement=rank_agreement(shares, drops),
        is_truncated=view.is_truncated,
    )


def _by_features(model: FeatureScore, text: Text, settings: Settings) -> Explanation:
    view = PlainView(model, text)
    score = float(model.score_texts([view.prompt], [view.response]))
    drops = occlusions(view, score, settings.occlusion, settings.most_occlusions)
    shares = [one.drop / (one.end - one.first) for one in drops for _ in range(one.first, one.end)]
    bias, reasons = model.explain(view.prompt, view.response)
    return Explanation(
        prompt=view.prompt,
        response=view.response,
        score=score,
        words=_named(view, shares),
        occlusions=drops,
        trajectory=trajectory(view, settings.points),
        bias=bias,
        reasons=reasons,
    )


def _named(view: View, shares: Sequence[float]) -> list[WordShare]:
    texts = {"prompt": view.prompt, "response": view.response}
    return [
        WordShare(word.part, word.start, word.end, texts[word.part][word.start : word.end], share)
        for word, share in zip(view.words, shares, strict=True)
    ]
