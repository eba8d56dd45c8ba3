"""Inter-annotator agreement by data set and kind of judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_lightning.feedback.quality.alpha import MeasurementLevel, alpha_interval
from rlhf_lightning.feedback.quality.votes import Tables, Votes, judged_by_several, tables_of
from rlhf_lightning.flow import Feedback


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


def agreement(feedback: Sequence[Feedback]) -> list[AnnotatorAgreement]:
    """Compute alpha of each data set, kind and aspect with a unit judged by two named annotators.

    A unit is a response to its prompt (for ratings also its aspect and turn), a pair of responses, or a response among the same set of
    responses. An annotator's first judgement of a unit counts; judgements without an annotator are ignored.
    """
    return agreement_of(tables_of(feedback))


def agreement_of(tables: Tables) -> list[AnnotatorAgreement]:
    """Compute `agreement` from votes."""
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
