"""Biases of judgements (display order, length, haste) and contradictory comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from rlhf_lightning.feedback.quality.votes import Comparisons, data_set
from rlhf_lightning.feedback.standardise import unit_rating
from rlhf_lightning.flow import Feedback, Ranking, Rating
from rlhf_lightning.statistics.intervals import correlation_interval, proportion_interval
from rlhf_lightning.statistics.ranks import rank_correlation

CHARACTERS_PER_SECOND = 50.0
MIN_RATED = 4


@dataclass(frozen=True)
class Share:
    """A fraction of n with its 95 % Wilson interval; `ties` are not in n."""

    share: float
    low: float
    high: float
    n: int
    ties: int = 0


@dataclass(frozen=True)
class LengthRating:
    """Spearman's correlation of ratings of one aspect with the text's length, and its 95 % interval."""

    data_set: str
    aspect: str
    correlation: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class TimeSpent:
    """Median seconds of a judgement, and the fraction made faster than the texts can be read."""

    median_seconds: float
    too_fast: float
    n: int


@dataclass(frozen=True)
class Contradictions:
    """Counts of compared pairs of responses, ties left out.

    Attributes:
        pairs: all of them.
        repeated, within: judged more than once by one annotator; of these, both ways.
        shared, between: judged by several self-consistent annotators; of these, both ways. Unnamed annotators are left out.
    """

    pairs: int
    repeated: int
    within: int
    shared: int
    between: int


@dataclass(frozen=True)
class Bias:
    """The biases of some feedback; None if there is nothing to count.

    Attributes:
        first_wins: fraction of rankings in which the response shown first beat the one shown last.
        longer_wins: fraction of rankings in which the longest response beat the shortest, in characters, if these are unique.
    """

    first_wins: Share | None
    longer_wins: Share | None
    length_ratings: list[LengthRating]
    time: TimeSpent | None


def bias(feedback: Iterable[Feedback], *, characters_per_second: float = CHARACTERS_PER_SECOND) -> Bias:
    """Measure the biases of some feedback; a ranking counts once, by its extremes.

    Args:
        characters_per_second: highest plausible reading speed of prompt and responses. The default is twice the
            silent reading speed of English, 238 words a minute (M. Brysbaert, "How many words do we read per minute?", 2019). It is
            too high for scripts that write a word in one or two characters.
    """
    first_outcomes: list[float] = []
    longer_outcomes: list[float] = []
    ratings: dict[tuple[str, str], list[tuple[float, int]]] = {}
    seconds: list[float] = []
    too_fast = 0
    for record in feedback:
        judgement = record.judgement
        if isinstance(judgement, Ranking):
            longer_outcomes += _extremes(judgement, [len(text) for text in record.responses])
            if record.positions is not None:
                first_outcomes += _extremes(judgement, [-position for position in record.positions])
        elif isinstance(judgement, Rating):
            ratings.setdefault((data_set(record), judgement.aspect or ""), []).append((unit_rating(judgement), len(record.responses[0])))
        if record.seconds is not None:
            seconds.append(record.seconds)
            too_fast += len(record.prompt_text) + sum(map(len, record.responses)) > characters_per_second * record.seconds
    by_length = [interval for (name, aspect), pairs in sorted(ratings.items()) if (interval := _length_rating(name, aspect, pairs))]
    time = TimeSpent(median(seconds), too_fast / len(seconds), len(seconds)) if seconds else None
    return Bias(_share(first_outcomes), _share(longer_outcomes), by_length, time)


def contradictions(pairs: Comparisons, names: int) -> Contradictions:
    """Count the pairs of responses that were compared both ways, by one annotator and by different ones.

    Args:
        pairs: all comparisons.
        names: number of named annotators.
    """
    decided = pairs.take(pairs.value != 0.5)
    if not len(decided):
        return Contradictions(0, 0, 0, 0, 0)
    units = int(decided.unit.max()) + 1
    named = decided.take(decided.annotator < names)
    cells, cell_index, counts = np.unique(np.stack([named.unit, named.annotator]), axis=1, return_inverse=True, return_counts=True)
    wins = np.bincount(cell_index.ravel(), named.value, cells.shape[1])
    is_contradicted = (wins > 0) & (wins < counts)
    consistent_units = cells[0][~is_contradicted]
    first_wins, voters = np.bincount(consistent_units, wins[~is_contradicted] > 0, units), np.bincount(consistent_units, minlength=units)
    return Contradictions(
        pairs=len(np.unique(decided.unit)),
        repeated=int((counts > 1).sum()),
        within=int(is_contradicted.sum()),
        shared=int((voters > 1).sum()),
        between=int(((voters > 1) & (first_wins > 0) & (first_wins < voters)).sum()),
    )


def _extremes(ranking: Ranking, numbers: Sequence[int]) -> list[float]:
    """Return [1] if the highest number beat the lowest, [0] if it lost, [0.5] for a tie.

    Nothing if the highest or lowest number isn't unique.
    """
    ranked = sorted((number, rank) for number, rank in zip(numbers, ranking.ranks, strict=True) if rank is not None)
    if len(ranked) < 2 or ranked[0][0] == ranked[1][0] or ranked[-1][0] == ranked[-2][0]:
        return []
    top, bottom = ranked[-1][1], ranked[0][1]
    return [(1.0 + (top < bottom) - (top > bottom)) / 2]


def _share(outcomes: Sequence[float]) -> Share | None:
    decided = [outcome for outcome in outcomes if outcome != 0.5]
    if not decided:
        return None
    interval = proportion_interval(int(sum(decided)), len(decided))
    return Share(interval.mean, interval.low, interval.high, len(decided), len(outcomes) - len(decided))


def _length_rating(name: str, aspect: str, pairs: Sequence[tuple[float, int]]) -> LengthRating | None:
    """Correlate ratings with lengths; the ratings are treated as independent."""
    n = len(pairs)
    value, length = np.array(pairs, dtype=np.float64).T
    interval = rank_correlation(value, length) if n >= MIN_RATED else None
    if interval is None:
        return None
    bounds = correlation_interval(interval, n)
    return LengthRating(name, aspect, interval, bounds.low, bounds.high, n)
