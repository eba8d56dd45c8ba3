"""How far annotators who judged the same things agree, for each data set and kind of judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_lightning.feedback.quality.alpha import Level, alpha_interval
from rlhf_lightning.feedback.quality.votes import Tables, Votes, judged_by_several, tables_of
from rlhf_lightning.flow import Feedback


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of one kind of judgement in one data set.

    Attributes:
        kind: "rating" (interval), "thumbs" and "pair" (nominal), or "ranking" (ordinal, of a response among the same responses).
        aspect: of ratings; "" for none.
        alpha: 1 perfect, 0 chance; None where all judgements are equal. low, high: its 95 % interval over units; None below ten units.
        units, judgements, annotators: how many of each were judged by several; nothing else takes part.
    """

    data_set: str
    kind: str
    aspect: str
    level: Level
    alpha: float | None
    low: float | None
    high: float | None
    units: int
    judgements: int
    annotators: int


def agreement(feedback: Sequence[Feedback]) -> list[Agreement]:
    """Alpha of each data set, kind and aspect in which at least two named annotators judged the same unit.

    A unit is a response to its prompt (for ratings also its aspect and turn), a pair of responses, or a response among the same set of
    responses. Who judged a unit twice counts once, by the first judgement; judgements without a name take no part.
    """
    return agreement_of(tables_of(feedback))


def agreement_of(tables: Tables) -> list[Agreement]:
    """`agreement` of votes."""
    two = tables.pairs.weight == 1
    kinds: list[tuple[str, Level, Votes, np.ndarray]] = [
        ("rating", "interval", tables.ratings, tables.ratings.unit),
        ("thumbs", "nominal", tables.thumbs, tables.thumbs.unit),
        ("pair", "nominal", tables.pairs.take(two), tables.pairs.unit[two]),
        ("ranking", "ordinal", tables.places, tables.among),
    ]
    found = []
    for kind, level, votes, cluster in kinds:
        for group in np.unique(votes.group):
            rows = _several(votes, int(group), len(tables.annotators))
            if not len(rows):
                continue
            unit, value = votes.unit[rows], votes.value[rows]
            alpha = alpha_interval(unit, value, level, cluster=cluster[rows])
            name, aspect = tables.groups[group]
            annotators = len(np.unique(votes.annotator[rows]))
            counts = len(np.unique(unit)), len(rows), annotators
            found.append(Agreement(name, kind, aspect, level, alpha.alpha, alpha.low, alpha.high, *counts))
    return found


def _several(votes: Votes, group: int, names: int) -> np.ndarray:
    """Rows of the group by named annotators, one for each unit and annotator, of units with at least two."""
    rows = np.flatnonzero((votes.group == group) & (votes.annotator < names))
    if not len(rows):
        return rows
    _, first = np.unique(np.stack([votes.unit[rows], votes.annotator[rows]]), axis=1, return_index=True)
    rows = rows[np.sort(first)]
    return np.asarray(rows[judged_by_several(votes.unit[rows], votes.annotator[rows])[votes.unit[rows]]])
