"""A reward model's metrics on held-out feedback: orders kept, calibration, dependence on length.

Own code: torchmetrics' calibration error has bins of equal width, no intervals and no error by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_lightning.reward.evaluation.verdict import Verdict
from rlhf_lightning.statistics.intervals import Interval, clustered_proportion_interval

MAX_BINS, MIN_BIN_SIZE = 12, 20


@dataclass(frozen=True)
class Bin:
    """Comparisons of similar confidence: mean probability of the preferred side, and its accuracy."""

    stated: float
    right: Interval


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model's probabilities on n comparisons.

    Attributes:
        ece: expected calibration error, the mean over comparisons of |stated - right| of their bin (C. Guo et al., 2017).
        ece_by_chance: the expected error for n independent comparisons if every probability were true: small sets look badly
            calibrated.
        brier: mean squared difference of 1 and the probability of the judgement; 0.25 for a coin.
        nll: mean negative log-probability of the judgement, nats; log 2 for a coin.
        bins: of equal numbers of comparisons, the least confident first.
    """

    ece: float
    ece_by_chance: float
    brier: float
    nll: float
    bins: list[Bin]
    n: int


def calibration(differences: np.ndarray, clusters: np.ndarray) -> Calibration | None:
    """The calibration of comparisons; None without any.

    At most MAX_BINS bins of equal counts, of about MIN_BIN_SIZE comparisons or more if there are so many; comparisons of equal
    confidence share a bin. A tie of the scores counts as a probability of a half that is half right.

    Args:
        differences: [M] score of the better less that of the worse response, in log-odds: not normalised.
        clusters: [M] the prompt of each, as a number, for `clustered_proportion_interval`.
    """
    n = len(differences)
    if not n:
        return None
    confidence = 1 / (1 + np.exp(-np.abs(differences)))
    right = (np.sign(differences) + 1) / 2
    bins: list[Bin] = []
    ece = by_chance = 0.0
    _, index, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / n
    bin_numbers = np.floor(middle * min(MAX_BINS, max(1, n // MIN_BIN_SIZE)))[index]
    for rows in (np.flatnonzero(bin_numbers == number) for number in np.unique(bin_numbers)):
        stated = float(confidence[rows].mean())
        bins.append(Bin(stated, clustered_proportion_interval(right[rows], clusters[rows])))
        ece += len(rows) / n * abs(stated - bins[-1].right.mean)
        # The mean of |X| for a normal X of this deviation, the number of right ones being nearly normal.
        by_chance += math.sqrt(2 / math.pi * float((confidence[rows] * (1 - confidence[rows])).sum())) / n
    brier = float(np.mean(np.where(differences > 0, 1 - confidence, confidence) ** 2))
    return Calibration(ece, by_chance, brier, float(np.logaddexp(0, -differences).mean()), bins, n)


@dataclass(frozen=True)
class LengthBias:
    """Dependence of a reward model on the response's length in characters.

    Comparisons of equal length are left out.

    Attributes:
        longer, shorter: accuracy if the better response is the longer one, and if it is the shorter one. A model of length alone has 1
            and 0.
        people, model: how often the longer response was judged better, and how often it scores higher.
        correlation: Spearman's of score and length over the texts.
        partial: the same, controlled for the response's worth: `control` is "ratings" (mean z-score) or "utility".
    """

    longer: Interval | None
    shorter: Interval | None
    people: Interval | None
    model: Interval | None
    correlation: Interval | None
    partial: Interval | None
    control: str


@dataclass(frozen=True)
class HeldOut:
    """A reward model's metrics on held-out feedback; None, or absent, if the feedback can't tell.

    Attributes:
        accuracy: share of comparisons whose better response scores higher, a tie of the scores being wrong; "all" and by kind. by_source:
            by data set. The intervals are clustered by prompt.
        tied: share of comparisons whose scores are equal.
        calibration: of the comparisons that people stated; those derived from ratings have no odds.
        kendall: mean tau-b of scores and ranks over rankings of three or more.
        spearman: of scores and ratings (z-scores), taken as independent. spearman_within: mean over the prompts with three or more rated
            responses, of the mean rating of each.
        auc: area under the ROC curve for thumbs.
        batch_change: the largest change of a score when texts are batched otherwise, in standard deviations of the score; rounding
            stays below 1e-4.
        same_scores: number of texts if all have the same score; else 0.
        thumbs_up: share of the thumbs that are up: the accuracy of a constant answer, where it is above half.
        verdict: whether the model is better than chance and than length.
    """

    accuracy: dict[str, Interval]
    by_source: dict[str, Interval]
    tied: float | None
    calibration: Calibration | None
    kendall: Interval | None
    spearman: Interval | None
    spearman_within: Interval | None
    auc: Interval | None
    length: LengthBias
    batch_change: float
    same_scores: int = 0
    thumbs_up: float | None = None
    verdict: Verdict | None = None

    @property
    def objective(self) -> float:
        """The first available of accuracy, correlation with ratings and AUC of thumbs; 0 without any."""
        candidates = (self.accuracy.get("all"), self.spearman, self.auc)
        return next((interval.mean for interval in candidates if interval is not None), 0.0)

    def by_name(self) -> dict[str, Interval | float]:
        """All available metrics by name, with intervals if they have one."""
        metrics: dict[str, Interval | float | None] = {f"accuracy/{kind}": interval for kind, interval in self.accuracy.items()}
        metrics |= {
            "kendall/ranking": self.kendall, "spearman/rating": self.spearman, "spearman/rating_within_prompt": self.spearman_within,
            "auc/thumbs": self.auc, "thumbs/up": self.thumbs_up,
            "accuracy/longer": self.length.longer, "accuracy/shorter": self.length.shorter,
            "length/spearman": self.length.correlation, "length/partial": self.length.partial, "tied": self.tied,
        }  # fmt: skip
        if self.calibration is not None:
            metrics |= {"ece": self.calibration.ece, "brier": self.calibration.brier, "nll": self.calibration.nll}
        return {name: value for name, value in metrics.items() if value is not None}

    def metrics(self) -> dict[str, float]:
        """The metrics by name as plain numbers, for sweeps."""
        return {name: value.mean if isinstance(value, Interval) else value for name, value in self.by_name().items()}

    def card(self) -> dict[str, Any]:
        """The verdict, and the metrics by name; intervals as mean, low, high and n without infinite bounds."""
        metrics = {name: _finite_fields(value) if isinstance(value, Interval) else value for name, value in self.by_name().items()}
        return {"verdict": None if self.verdict is None else self.verdict.text, "metrics": metrics}


def _finite_fields(interval: Interval) -> dict[str, float]:
    fields = {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
    return {name: value for name, value in fields.items() if np.isfinite(value)}
