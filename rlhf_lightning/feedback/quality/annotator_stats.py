"""Statistics of annotators' habits: position bias, repeated ratings, thumbs up, self-contradiction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlhf_lightning.feedback.quality.votes import Tables, Votes


@dataclass(frozen=True)
class AnnotatorStats:
    """Fractions in 0..1; None if there is nothing to count.

    Attributes:
        first: of the comparisons with a known display order, ties left out: won by the response that was shown first.
        same_rating: of the ratings: fraction of the most frequent one, averaged over data sets and aspects.
        up: of the thumbs.
        contradicts_itself: of the pairs and thumbs judged more than once by this annotator: judged both ways.
    """

    first: float | None = None
    same_rating: float | None = None
    up: float | None = None
    contradicts_itself: float | None = None


def annotator_stats(tables: Tables) -> list[AnnotatorStats]:
    """Compute the statistics of each annotator of the tables, in their order."""
    names = len(tables.annotators)
    pairs, ratings, thumbs = tables.pairs, tables.ratings, tables.thumbs
    decided = pairs.take((pairs.display_order != 0) & (pairs.value != 0.5))
    first = (decided.value == 1) == (decided.display_order == 1)
    columns = [
        _share(decided.annotator, first, names),
        _most_frequent(ratings, names),
        _share(thumbs.annotator, thumbs.value, names),
        _both_ways([pairs, thumbs], names),
    ]
    return [AnnotatorStats(*(None if np.isnan(column[i]) else float(column[i]) for column in columns)) for i in range(names)]


def _share(annotator: np.ndarray, value: np.ndarray, names: int) -> np.ndarray:
    n = np.bincount(annotator, minlength=names + 1)
    return np.where(n > 0, np.bincount(annotator, value.astype(np.float64), names + 1) / np.clip(n, 1, None), np.nan)


def _most_frequent(ratings: Votes, names: int) -> np.ndarray:
    if not len(ratings):
        return np.full(names, np.nan)
    value = np.unique(ratings.value, return_inverse=True)[1]
    cells, counts = np.unique(np.stack([ratings.annotator, ratings.group, value]), axis=1, return_counts=True)
    annotator_group, group_index = np.unique(cells[:2], axis=1, return_inverse=True)
    highest = np.zeros(annotator_group.shape[1])
    np.maximum.at(highest, group_index.ravel(), counts)
    n = np.bincount(ratings.annotator, minlength=names + 1)
    return np.where(n > 0, np.bincount(annotator_group[0], highest, names + 1) / np.clip(n, 1, None), np.nan)


def _both_ways(tables: list[Votes], names: int) -> np.ndarray:
    repeated, contradicted = np.zeros(names + 1), np.zeros(names + 1)
    for votes in tables:
        if not len(votes):
            continue
        decided = votes.take(votes.value != 0.5)
        cells, cell_index, counts = np.unique(np.stack([decided.annotator, decided.unit]), axis=1, return_inverse=True, return_counts=True)
        ups = np.bincount(cell_index.ravel(), decided.value, cells.shape[1])
        repeated += np.bincount(cells[0], counts > 1, names + 1)
        contradicted += np.bincount(cells[0], (ups > 0) & (ups < counts), names + 1)
    return np.where(repeated > 0, contradicted / np.clip(repeated, 1, None), np.nan)
