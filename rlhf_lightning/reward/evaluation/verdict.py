"""The verdict on a reward model: better than chance, than length and than the majority class, or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlhf_lightning.statistics.intervals import Interval, clustered_mean_interval, clustered_proportion_interval, correlation_interval
from rlhf_lightning.statistics.ranks import area_under_curve, partial_rank_correlation, rank_correlation

LEVEL = 0.9973
"""Level of the interval against chance, three standard errors: of 400 models that learned nothing one passes."""
LENGTH_LEVEL = 0.95
MIN_JUDGEMENTS = 10
Level = Literal["better", "length", "chance", "one class", "unknown"]
ADVICE = {
    "better": "",
    "length": "try feedback on responses of similar length, reward_feature without length, or more judgements",
    "chance": "try more feedback, a pretrained model (backbone.path), more reward.epochs, or look at the feedback by stage=inspect",
    "one class": "collect judgements of both kinds, or comparisons",
    "unknown": "hold out more (reward.validation_fraction), or collect more feedback",
}


@dataclass(frozen=True)
class Verdict:
    """A judgement of a reward model by held-out feedback.

    Attributes:
        level: better than chance and length; not better than length; not better than chance; judged on thumbs of one class; unknown.
        sentence: the verdict with its figures.
    """

    level: Level
    sentence: str

    @property
    def text(self) -> str:
        """The sentence with what to try next."""
        advice = ADVICE[self.level]
        return f"{self.sentence}; {advice}" if advice else self.sentence


def judge_reward_model(comparisons: np.ndarray, ratings: np.ndarray, thumbs: np.ndarray) -> Verdict:
    """Judge a reward model by the first of comparisons, ratings and thumbs of which there are enough.

    Against chance the interval has three standard errors, against length 95 %.

    Args:
        comparisons, ratings, thumbs: tables of `Outcomes`.
    """
    if len(comparisons) >= MIN_JUDGEMENTS:
        return _of_comparisons(comparisons)
    if len(ratings) >= MIN_JUDGEMENTS and np.ptp(ratings["z_score"]) > 0:
        return _of_ratings(ratings)
    if len(thumbs) >= MIN_JUDGEMENTS:
        return _of_thumbs(thumbs)
    count = max(len(comparisons), len(ratings), len(thumbs))
    return Verdict("unknown", f"held-out feedback can't tell whether the model is better than chance: it has {count} judgements of a kind")


def _of_comparisons(rows: np.ndarray) -> Verdict:
    right = rows["difference"] > 0
    accuracy = clustered_proportion_interval(right, rows["cluster"], LEVEL)
    figures = f"{100 * accuracy.mean:.1f} % of {accuracy.n:,} held-out comparisons"
    if accuracy.low <= 0.5:
        return _chance(figures, is_worse=accuracy.high < 0.5)
    longer = np.where(rows["extra_length"] == 0, 0.5, (rows["extra_length"] > 0).astype(float))
    by_length = longer if longer.mean() >= 0.5 else 1 - longer
    gain = clustered_mean_interval(right - by_length, rows["cluster"], LENGTH_LEVEL)
    which = "longer" if by_length is longer else "shorter"
    return _length(gain, figures, f"the {which} response alone gets {100 * by_length.mean():.1f} %")


def _of_ratings(rows: np.ndarray) -> Verdict:
    correlation = rank_correlation(rows["score"], rows["z_score"])
    if correlation is None:
        return _chance("the same score for all rated responses", is_worse=False)
    interval = correlation_interval(correlation, len(rows), LEVEL)
    figures = f"a rank correlation of {correlation:.2f} with {len(rows):,} held-out ratings"
    if interval.low <= 0:
        return _chance(figures, is_worse=interval.high < 0)
    alone = rank_correlation(rows["length"], rows["z_score"]) or 0.0
    partial = partial_rank_correlation(rows["score"], rows["z_score"], rows["length"])
    gain = correlation_interval(0.0 if partial is None else partial, len(rows) - 1, LENGTH_LEVEL)
    return _length(gain, figures, f"length alone has {alone:.2f}")


def _of_thumbs(rows: np.ndarray) -> Verdict:
    up = rows["up"]
    share = float(up.mean())
    balance = f"{100 * share:.0f} % of {len(rows):,} held-out thumbs are up"
    curve = area_under_curve(rows["score"], up)
    if curve is None:
        return Verdict("one class", f"{balance}: a constant score is right on all of them, and nothing can be said of the model")
    low, high = (curve.mean + 3 / 1.96 * (bound - curve.mean) for bound in (curve.low, curve.high))
    figures = (
        f"an area under the curve of {curve.mean:.2f} ({balance}, so a constant answer is right on {100 * max(share, 1 - share):.0f} %)"
    )
    if low <= 0.5:
        return _chance(figures, is_worse=high < 0.5)
    alone = area_under_curve(rows["length"].astype(float), up)
    partial = partial_rank_correlation(rows["score"], up.astype(float), rows["length"])
    gain = correlation_interval(0.0 if partial is None else partial, len(rows) - 1, LENGTH_LEVEL)
    return _length(gain, figures, f"length alone has {0.5 if alone is None else max(alone.mean, 1 - alone.mean):.2f}")


def _chance(figures: str, is_worse: bool) -> Verdict:
    if is_worse:
        return Verdict("chance", f"the reward model is worse than chance, {figures}: are labels turned around?")
    return Verdict("chance", f"the reward model is not shown to be better than chance, {figures}")


def _length(gain: Interval, figures: str, baseline: str) -> Verdict:
    if gain.low <= 0:
        return Verdict("length", f"the reward model is better than chance, {figures}, but not shown to be better than length: {baseline}")
    return Verdict("better", f"the reward model is better than chance and than length alone: {figures}; {baseline}")
