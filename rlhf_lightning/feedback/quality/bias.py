"""What decides judgements besides the texts' worth: the place on the screen, length, haste; and pairs that were judged both ways."""

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
FEWEST_RATED = 4


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson's); of n, of which `ties` more were neither."""

    share: float
    low: float
    high: float
    n: int
    ties: int = 0


@dataclass(frozen=True)
class LengthRating:
    """Spearman's correlation of one data set's ratings of one aspect with the length of the rated text, and its 95 % interval."""

    data_set: str
    aspect: str
    correlation: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class TimeSpent:
    """Seconds for a judgement: the median, and the share of judgements made faster than they can have been read."""

    median_seconds: float
    too_fast: float
    n: int


@dataclass(frozen=True)
class Contradictions:
    """Pairs of responses that were compared, ties apart.

    Attributes:
        pairs: compared at all.
        repeated, within: judged more than once by one annotator; so, both ways.
        shared, between: judged by several annotators, none of whom contradicts itself; so, both ways. Without a name nobody is known to
            be somebody else.
    """

    pairs: int
    repeated: int
    within: int
    shared: int
    between: int


@dataclass(frozen=True)
class Bias:
    """Everything of this module; None where there is nothing to count.

    Attributes:
        first_wins: share of rankings whose response that was shown first beat the one that was shown last.
        longer_wins: share of rankings whose longest response beat the shortest, in characters; where two share an end, it is left out.
    """

    first_wins: Share | None
    longer_wins: Share | None
    length_ratings: list[LengthRating]
    time: TimeSpent | None


def bias(feedback: Iterable[Feedback], *, characters_per_second: float = CHARACTERS_PER_SECOND) -> Bias:
    """The biases of some feedback. A ranking counts once, by its extremes, so that what is counted is independent.

    Args:
        characters_per_second: who reads the prompt and the responses faster than this can't have read them all. The default is twice the
            silent reading speed of English, 238 words a minute (M. Brysbaert, "How many words do we read per minute?", 2019). Scripts
            that write a word in one or two characters are read more slowly than it assumes.
    """
    first: list[float] = []
    longer: list[float] = []
    rated: dict[tuple[str, str], list[tuple[float, int]]] = {}
    seconds: list[float] = []
    fast = 0
    for record in feedback:
        judgement = record.judgement
        if isinstance(judgement, Ranking):
            longer += _extremes(judgement, [len(text) for text in record.responses])
            if record.positions is not None:
                first += _extremes(judgement, [-position for position in record.positions])
        elif isinstance(judgement, Rating):
            rated.setdefault((data_set(record), judgement.aspect or ""), []).append((unit_rating(judgement), len(record.responses[0])))
        if record.seconds is not None:
            seconds.append(record.seconds)
            fast += len(record.prompt_text) + sum(map(len, record.responses)) > characters_per_second * record.seconds
    by_length = [found for (name, aspect), pairs in sorted(rated.items()) if (found := _length_rating(name, aspect, pairs))]
    time = TimeSpent(median(seconds), fast / len(seconds), len(seconds)) if seconds else None
    return Bias(_share(first), _share(longer), by_length, time)


def contradictions(pairs: Comparisons, names: int) -> Contradictions:
    """How often the same two responses were compared both ways, by one annotator and by different ones.

    Args:
        pairs: all comparisons.
        names: how many annotators have a name.
    """
    decided = pairs.take(pairs.value != 0.5)
    if not len(decided):
        return Contradictions(0, 0, 0, 0, 0)
    units = int(decided.unit.max()) + 1
    named = decided.take(decided.annotator < names)
    cell, where, times = np.unique(np.stack([named.unit, named.annotator]), axis=1, return_inverse=True, return_counts=True)
    ups = np.bincount(where.ravel(), named.value, cell.shape[1])
    torn = (ups > 0) & (ups < times)
    steady = cell[0][~torn]
    yes, voices = np.bincount(steady, ups[~torn] > 0, units), np.bincount(steady, minlength=units)
    return Contradictions(
        pairs=len(np.unique(decided.unit)),
        repeated=int((times > 1).sum()),
        within=int(torn.sum()),
        shared=int((voices > 1).sum()),
        between=int(((voices > 1) & (yes > 0) & (yes < voices)).sum()),
    )


def _extremes(ranking: Ranking, numbers: Sequence[int]) -> list[float]:
    """[1] where the ranked response with the highest number beat that with the lowest, [0] where it lost, [0.5] where they tie; nothing
    where two share an end."""
    ranked = sorted((number, rank) for number, rank in zip(numbers, ranking.ranks, strict=True) if rank is not None)
    if len(ranked) < 2 or ranked[0][0] == ranked[1][0] or ranked[-1][0] == ranked[-2][0]:
        return []
    top, bottom = ranked[-1][1], ranked[0][1]
    return [(1.0 + (top < bottom) - (top > bottom)) / 2]


def _share(outcomes: Sequence[float]) -> Share | None:
    decided = [outcome for outcome in outcomes if outcome != 0.5]
    if not decided:
        return None
    found = proportion_interval(int(sum(decided)), len(decided))
    return Share(found.mean, found.low, found.high, len(decided), len(outcomes) - len(decided))


def _length_rating(name: str, aspect: str, pairs: Sequence[tuple[float, int]]) -> LengthRating | None:
    """The ratings are taken as independent."""
    n = len(pairs)
    value, length = np.array(pairs, dtype=np.float64).T
    found = rank_correlation(value, length) if n >= FEWEST_RATED else None
    if found is None:
        return None
    bounds = correlation_interval(found, n)
    return LengthRating(name, aspect, found, bounds.low, bounds.high, n)
