"""Krippendorff's alpha for any number of annotators, with missing values.

Own code: the bootstrap over clusters reuses the pairable values, which the krippendorff package (the tests' reference) doesn't expose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.quality.votes import Tables, Votes, judged_by_several

MeasurementLevel = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[MeasurementLevel, ...] = ("nominal", "ordinal", "interval")
MIN_CLUSTERS = 10


@dataclass(frozen=True)
class AlphaInterval:
    """Alpha with its 95 % bootstrap interval from low to high; None if undefined."""

    alpha: float | None
    low: float | None = None
    high: float | None = None


def alpha_interval(
    unit: np.ndarray,
    value: np.ndarray,
    level: MeasurementLevel,
    *,
    cluster: np.ndarray | None = None,
    repetitions: int = 500,
    seed: int = 0,
) -> AlphaInterval:
    """Compute 1 - observed / expected disagreement: 1 is perfect, 0 chance, below 0 systematic.

    K. Krippendorff, "Computing Krippendorff's alpha-reliability", 2011. The ordinal distance between two values is the difference of
    their middle ranks, so that ordinal alpha is the interval alpha of middle ranks. Alpha is None if no unit has two values, or if all
    pairable values are equal: agreement without variation isn't measurable. The 95 % percentile interval is by bootstrap over units.

    A deviation: Krippendorff's bootstrap draws pairs of values as if they were independent; its interval is too narrow for units with
    many raters. No interval for fewer than ten units (clusters).

    Args:
        unit, value: [N] of each judgement.
        level: of measurement. "nominal": equal or not; "ordinal": number of values between; "interval": numeric difference.
        cluster: [N] dependent units (the responses of one ranking) have the same cluster and are drawn together.
        repetitions: number of bootstrap samples; those without variation are left out.

    Raises:
        ConfigError: a value that isn't finite, or an unknown level.
    """
    pairable = _Pairable(unit, value, level)
    alpha = pairable.alpha()
    if alpha is None:
        return AlphaInterval(None)
    cluster_index = np.unique((unit if cluster is None else cluster)[pairable.rows], return_inverse=True)[1]
    cluster_of_unit = np.zeros(pairable.units, dtype=np.int64)
    cluster_of_unit[pairable.unit] = cluster_index
    count = int(cluster_index.max()) + 1
    if count < MIN_CLUSTERS:
        return AlphaInterval(alpha)
    rng = np.random.default_rng(seed)
    draws = (np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(repetitions))
    alphas = [alpha_drawn for draw in draws if (alpha_drawn := pairable.alpha(draw[cluster_of_unit].astype(np.float64))) is not None]
    if not alphas:
        return AlphaInterval(alpha)
    low, high = np.quantile(alphas, [0.025, 0.975])
    return AlphaInterval(alpha, float(low), float(high))


class _Pairable:
    """Values of units with at least two, and the statistics that don't depend on the bootstrap sample."""

    def __init__(self, unit: np.ndarray, value: np.ndarray, level: MeasurementLevel) -> None:
        if level not in LEVELS:
            raise ConfigError(f"level={level!r}: the levels of alpha are {', '.join(LEVELS)}")
        if not np.isfinite(value).all():
            raise ConfigError("alpha takes finite values")
        unit = np.unique(unit, return_inverse=True)[1]
        self.rows = np.flatnonzero(np.bincount(unit)[unit] > 1) if len(unit) else np.zeros(0, dtype=np.int64)
        self.unit = np.unique(unit[self.rows], return_inverse=True)[1]
        self.units = int(self.unit.max()) + 1 if len(self.unit) else 0
        self.size = np.bincount(self.unit, minlength=self.units)
        self.distinct, self.code = np.unique(value[self.rows], return_inverse=True)
        self.level = level
        self._fixed_disagreement = None if level == "ordinal" else self._unit_disagreement(self.distinct)

    def alpha(self, unit_weights: np.ndarray | None = None) -> float | None:
        """Compute alpha with weights [units], 1 by default."""
        if len(self.distinct) < 2:
            return None
        unit_weights = np.ones(self.units) if unit_weights is None else unit_weights
        n_of = np.bincount(self.code, unit_weights[self.unit], len(self.distinct))
        n = n_of.sum()
        scale = np.cumsum(n_of) - n_of / 2 if self.level == "ordinal" else self.distinct
        disagreement = self._unit_disagreement(scale) if self._fixed_disagreement is None else self._fixed_disagreement
        if self.level == "nominal":
            expected = (n * n - (n_of * n_of).sum()) / (n - 1)
        else:
            expected = 2 * n * (n_of * (scale - (n_of * scale).sum() / n) ** 2).sum() / (n - 1)
        return None if np.count_nonzero(n_of) < 2 else 1 - float((unit_weights * disagreement).sum() / expected)

    def _unit_disagreement(self, scale: np.ndarray) -> np.ndarray:
        """Return [units] the distances of all ordered pairs of values in a unit / (number of values - 1)."""
        if self.level == "nominal":
            pairs, equal = np.unique(self.unit * len(self.distinct) + self.code, return_counts=True)
            agreeing = np.bincount(pairs // max(len(self.distinct), 1), equal**2, self.units)
            return np.asarray((self.size**2 - agreeing) / (self.size - 1))
        value = scale[self.code]
        mean = np.bincount(self.unit, value, self.units) / self.size
        return np.asarray(2 * self.size * np.bincount(self.unit, (value - mean[self.unit]) ** 2, self.units) / (self.size - 1))


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Krippendorff's alpha of one kind of judgement in one data set.

    Attributes:
        kind: "rating" (interval), "thumbs" and "pair" (nominal), or "ranking" (ordinal, of a response among the same responses).
        aspect: of ratings; "" for none.
        alpha: 1 perfect, 0 chance; None if all judgements are equal. low, high: its 95 % interval over units; None below ten units.
        units, judgements, annotators: number of units judged by several annotators, of their judgements and annotators.
    """

    data_set: str
    kind: str
    aspect: str
    level: MeasurementLevel
    alpha: float | None
    low: float | None
    high: float | None
    units: int
    judgements: int
    annotators: int


def agreement(tables: Tables) -> list[AnnotatorAgreement]:
    """Compute alpha of each data set, kind and aspect with a unit judged by two named annotators.

    A unit is a response to its prompt (for ratings also its aspect and turn), a pair of responses, or a response among the same set of
    responses. An annotator's first judgement of a unit counts; judgements without an annotator are ignored.
    """
    is_pair = tables.pairs.weight == 1
    votes_by_kind: list[tuple[str, MeasurementLevel, Votes, np.ndarray]] = [
        ("rating", "interval", tables.ratings, tables.ratings.unit),
        ("thumbs", "nominal", tables.thumbs, tables.thumbs.unit),
        ("pair", "nominal", tables.pairs.take(is_pair), tables.pairs.unit[is_pair]),
        ("ranking", "ordinal", tables.ranks, tables.response_set),
    ]
    agreements = []
    for kind, level, votes, cluster in votes_by_kind:
        for group in np.unique(votes.group):
            rows = _overlapping(votes, int(group), len(tables.annotators))
            if not len(rows):
                continue
            unit, value = votes.unit[rows], votes.value[rows]
            alpha = alpha_interval(unit, value, level, cluster=cluster[rows])
            name, aspect = tables.groups[group]
            annotators = len(np.unique(votes.annotator[rows]))
            counts = len(np.unique(unit)), len(rows), annotators
            agreements.append(AnnotatorAgreement(name, kind, aspect, level, alpha.alpha, alpha.low, alpha.high, *counts))
    return agreements


def _overlapping(votes: Votes, group: int, names: int) -> np.ndarray:
    """Return the group's rows by named annotators, one per unit and annotator, of units with two or more."""
    rows = np.flatnonzero((votes.group == group) & (votes.annotator < names))
    if not len(rows):
        return rows
    _, first = np.unique(np.stack([votes.unit[rows], votes.annotator[rows]]), axis=1, return_index=True)
    rows = rows[np.sort(first)]
    return np.asarray(rows[judged_by_several(votes.unit[rows], votes.annotator[rows])[votes.unit[rows]]])
