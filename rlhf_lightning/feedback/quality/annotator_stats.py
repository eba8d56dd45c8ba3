"""What an annotator does whatever is judged: the first, always the same number, always up, and one thing both ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhf_lightning.feedback.quality.votes import Tables, Votes


@dataclass(frozen=True)
class Habits:
    """Shares in 0..1; None where there is nothing to count.

    Attributes:
        first: of the comparisons without a tie whose order on the screen is known: won by the response that was shown first.
        same_rating: of the ratings: the most frequent one's share, by data set and aspect, which are averaged by number.
        up: of the thumbs.
        contradicts_itself: of the pairs and thumbs judged more than once by this annotator: judged both ways.
    """

    first: float | None = None
    same_rating: float | None = None
    up: float | None = None
    contradicts_itself: float | None = None


def habits_of(tables: Tables) -> list[Habits]:
    """The habits of each name of the tables, in their order."""
    names = len(tables.annotators)
    pairs, ratings, thumbs = tables.pairs, tables.ratings, tables.thumbs
    decided = pairs.take((pairs.shown != 0) & (pairs.value != 0.5))
    first = (decided.value == 1) == (decided.shown == 1)
    columns = [
        _share(decided.annotator, first, names),
        _most_frequent(ratings, names),
        _share(thumbs.annotator, thumbs.value, names),
        _both_ways([pairs, thumbs], names),
    ]
    return [Habits(*(None if np.isnan(column[i]) else float(column[i]) for column in columns)) for i in range(names)]


def _share(annotator: np.ndarray, value: np.ndarray, names: int) -> np.ndarray:
    n = np.bincount(annotator, minlength=names + 1)
    return np.where(n > 0, np.bincount(annotator, value.astype(np.float64), names + 1) / np.clip(n, 1, None), np.nan)


def _most_frequent(ratings: Votes, names: int) -> np.ndarray:
    if not len(ratings):
        return np.full(names, np.nan)
    value = np.unique(ratings.value, return_inverse=True)[1]
    cell, times = np.unique(np.stack([ratings.annotator, ratings.group, value]), axis=1, return_counts=True)
    who, place = np.unique(cell[:2], axis=1, return_inverse=True)
    most = np.zeros(who.shape[1])
    np.maximum.at(most, place.ravel(), times)
    n = np.bincount(ratings.annotator, minlength=names + 1)
    return np.where(n > 0, np.bincount(who[0], most, names + 1) / np.clip(n, 1, None), np.nan)


def _both_ways(tables: list[Votes], names: int) -> np.ndarray:
    repeated, contradicted = np.zeros(names + 1), np.zeros(names + 1)
    for votes in tables:
        if not len(votes):
            continue
        decided = votes.take(votes.value != 0.5)
        cell, where, times = np.unique(np.stack([decided.annotator, decided.unit]), axis=1, return_inverse=True, return_counts=True)
        ups = np.bincount(where.ravel(), decided.value, cell.shape[1])
        repeated += np.bincount(cell[0], times > 1, names + 1)
        contradicted += np.bincount(cell[0], (ups > 0) & (ups < times), names + 1)
    return np.where(repeated > 0, contradicted / np.clip(repeated, 1, None), np.nan)
