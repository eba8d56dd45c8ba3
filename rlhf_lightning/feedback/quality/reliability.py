"""How far each annotator's judgements can be trusted, from what others said about the same things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from rlhf_lightning.feedback.judgements import judgement_kind
from rlhf_lightning.feedback.quality.annotator_stats import Habits, habits_of
from rlhf_lightning.feedback.quality.dawid_skene import DawidSkene, dawid_skene
from rlhf_lightning.feedback.quality.noisy_bradley_terry import noisy_bradley_terry
from rlhf_lightning.feedback.quality.rating_noise import rating_noise
from rlhf_lightning.feedback.quality.sample import sampled
from rlhf_lightning.feedback.quality.votes import Comparisons, Tables, Votes, judged_by_several, tables_of
from rlhf_lightning.flow import Feedback

CAP = 50_000
SHRINK = 4.0
WEIGHT_SHRINK = 10.0


@dataclass(frozen=True)
class AnnotatorReliability:
    """One annotator.

    Attributes:
        name: as in the feedback.
        judgements: how many of each kind.
        overlap: how many say something about the annotator, because others judged the same; a ranking of K counts as K - 1.
        reliability: by "comparison" (pairs and rankings), "rating" and "thumbs": 0 says no more than a coin, 1 is always right. It is
            2 p - 1, where p is the probability to put two things in the right order, or to give the right label. Kinds without
            overlap are absent.
        combined: their mean by overlap; None without any.
        agreement: with others on the same unit: the share of equal verdicts and thumbs, the correlation of ratings with the others' mean.
        habits: what the annotator does whatever it judges.
        median_seconds: for one judgement, where it was recorded.
    """

    name: str
    judgements: dict[str, int]
    overlap: float
    reliability: dict[str, float]
    combined: float | None
    agreement: dict[str, float]
    habits: Habits
    median_seconds: float | None


def annotator_reliability(feedback: Sequence[Feedback]) -> list[AnnotatorReliability]:
    """Every named annotator, in alphabetical order.

    Pairs that several judged: Dawid and Skene's model with one coin for each annotator, a tie being half a judgement each way. Pairs
    that only one judged, of responses that others compared too: the noisy Bradley-Terry model. Ratings: one-factor analysis of each
    data set and aspect. Thumbs: Dawid and Skene. All shrink to the mean of all annotators. Edits say nothing here.
    """
    return reliability_of(feedback, tables_of(feedback))


def annotator_weights(feedback: Sequence[Feedback], *, cap: int = CAP) -> dict[str, float]:
    """How much each annotator's judgements should count: by reliability, with mean 1 over all judgements of named annotators.

    An annotator weighs 1 without overlap, and is near 1 with little: the overlap has to outweigh ten judgements. Feedback beyond `cap`
    comparisons is sampled by prompt; annotators who aren't in the sample have no weight here, and count as 1.
    """
    people = annotator_reliability(sampled(feedback, cap).records)
    known = [(person, person.combined) for person in people if person.combined is not None]
    overlap = sum(person.overlap for person, _ in known)
    mean = sum(person.overlap * reliability for person, reliability in known) / overlap if overlap else 0.0
    weights = {person.name: 1.0 for person in people}
    if mean <= 0:
        return weights
    for person, reliability in known:
        weights[person.name] += person.overlap / (person.overlap + WEIGHT_SHRINK) * (reliability / mean - 1)
    count = {person.name: sum(person.judgements.values()) for person, _ in known}
    level = sum(weights[name] * n for name, n in count.items()) / sum(count.values())
    for name in count:
        weights[name] /= level
    return weights


def reliability_of(feedback: Sequence[Feedback], tables: Tables) -> list[AnnotatorReliability]:
    """`annotator_reliability` from the feedback's own votes."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in tables.annotators}
    seconds: dict[str, list[float]] = {}
    for record in feedback:
        if record.annotator is not None:
            counts.setdefault(record.annotator, Counter())[judgement_kind(record)] += 1
            if record.seconds is not None:
                seconds.setdefault(record.annotator, []).append(record.seconds)
    parts = {
        "comparison": comparison_reliability(tables.pairs, len(tables.annotators) + 1),
        "rating": _rating_reliability(tables.ratings, len(tables.annotators) + 1),
        "thumbs": _thumbs_reliability(tables.thumbs, len(tables.annotators) + 1),
    }
    agreeing, habits = _agreements(tables), habits_of(tables)
    index = {name: i for i, name in enumerate(tables.annotators)}
    found = []
    for name in sorted(counts):
        at = index.get(name)
        own = {kind: (n[at], value[at]) for kind, (n, value) in parts.items() if at is not None and n[at] > 0}
        overlap = float(sum(n for n, _ in own.values()))
        combined = float(sum(n * value for n, value in own.values()) / overlap) if overlap else None
        found.append(
            AnnotatorReliability(
                name=name,
                judgements=dict(counts[name]),
                overlap=overlap,
                reliability={kind: float(value) for kind, (_, value) in own.items()},
                combined=combined,
                agreement={} if at is None else {kind: float(a[at]) for kind, a in agreeing.items() if np.isfinite(a[at])},
                habits=Habits() if at is None else habits[at],
                median_seconds=median(seconds[name]) if name in seconds else None,
            )
        )
    return found


def pair_truth(pairs: Comparisons) -> DawidSkene:
    """Which response of each pair wins (label 1: the first), with one coin for each annotator. A tie is half a judgement each way."""
    tie = np.flatnonzero(pairs.value == 0.5)
    rows = np.concatenate([np.arange(len(pairs)), tie])
    label = np.concatenate([np.ceil(pairs.value), np.zeros(len(tie))]).astype(np.int64)
    weight = pairs.weight * np.where(pairs.value == 0.5, 0.5, 1.0)
    return dawid_skene(pairs.unit[rows], pairs.annotator[rows], label, labels=2, one_coin=True, shrink=SHRINK, weight=weight[rows])


def comparison_reliability(pairs: Comparisons, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """[A] how many comparisons overlap with others', and the reliability that they show."""
    count, value = np.zeros(annotators), np.zeros(annotators)
    shared = pairs.shared()
    if shared.any():
        coin = pair_truth(pairs.take(shared)).confusion[:, 1, 1]
        count += np.bincount(pairs.annotator[shared], pairs.weight[shared], annotators)
        value[: len(coin)] += count[: len(coin)] * np.clip(2 * coin - 1, 0, 1)
    linked = _linked(pairs) if len(pairs) else shared
    if (linked & ~shared).any():
        some = pairs.take(linked)
        model = noisy_bradley_terry(some.first, some.second, some.annotator, some.value, shown=some.shown, weight=some.weight)
        rest = linked & ~shared
        more = np.bincount(pairs.annotator[rest], pairs.weight[rest], annotators)
        value[: len(model.skill)] += more[: len(model.skill)] * model.skill
        count += more
    return count, value / np.clip(count, 1e-9, None)


def _linked(pairs: Comparisons) -> np.ndarray:
    """[N] whether both responses were compared by other annotators too, be it with other responses."""
    responses, twice = np.concatenate([pairs.first, pairs.second]), np.concatenate([pairs.annotator, pairs.annotator])
    several = judged_by_several(responses, twice)
    return np.asarray(several[pairs.first] & several[pairs.second])


def _rating_reliability(ratings: Votes, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """As `comparison_reliability`. Normal ratings that correlate with the truth by rho put two units in the right order with
    p = 1/2 + asin(rho) / pi."""
    count, value = np.zeros(annotators), np.zeros(annotators)
    shared = ratings.take(ratings.shared())
    for group in np.unique(shared.group):
        votes = shared.take(shared.group == group)
        model = rating_noise(np.unique(votes.unit, return_inverse=True)[1], votes.annotator, votes.value)
        n = np.bincount(votes.annotator, minlength=annotators)
        order = 2 / np.pi * np.arcsin(np.sqrt(model.reliability))
        value[: len(order)] += n[: len(order)] * order
        count += n
    return count, value / np.clip(count, 1e-9, None)


def _thumbs_reliability(thumbs: Votes, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """As `comparison_reliability`: p is the mean of being right about good and about bad responses, so that neither always says up."""
    count, value = np.zeros(annotators), np.zeros(annotators)
    votes = thumbs.take(thumbs.shared())
    if len(votes):
        said = thumbs_truth(votes).confusion
        count += np.bincount(votes.annotator, minlength=annotators)
        value[: len(said)] = np.clip(said[:, 0, 0] + said[:, 1, 1] - 1, 0, 1)
    return count, value


def thumbs_truth(thumbs: Votes) -> DawidSkene:
    """Which responses deserve a thumb up (label 1), and how each annotator confuses up and down."""
    return dawid_skene(thumbs.unit, thumbs.annotator, thumbs.value.astype(np.int64), labels=2, shrink=SHRINK)


def _agreements(tables: Tables) -> dict[str, np.ndarray]:
    """[A] for each kind, NaN where an annotator has no unit in common with others."""
    names = len(tables.annotators) + 1
    return {
        "comparison": _equal_share(tables.pairs, names),
        "rating": _correlation(tables.ratings, names),
        "thumbs": _equal_share(tables.thumbs, names),
    }


def _equal_share(votes: Votes, names: int) -> np.ndarray:
    """[A] of the judgements by others of what the annotator judged: the share that says the same."""
    if not len(votes):
        return np.full(names, np.nan)
    size = int(votes.unit.max()) + 1
    code = np.round(2 * votes.value).astype(np.int64)

    def counted(key: np.ndarray) -> np.ndarray:
        _, where, times = np.unique(key, return_inverse=True, return_counts=True)
        return np.asarray(times[where])

    own = votes.unit * names + votes.annotator
    equal = counted(votes.unit * 3 + code) - counted(own * 3 + code)
    others = np.bincount(votes.unit, minlength=size)[votes.unit] - counted(own)
    total = np.bincount(votes.annotator, others, names)
    return np.where(total > 0, np.bincount(votes.annotator, equal, names) / np.clip(total, 1, None), np.nan)


def _correlation(votes: Votes, names: int) -> np.ndarray:
    """[A] Pearson's correlation of ratings with the mean of the others' ratings of the same unit, within data set and aspect."""
    votes = votes.take(votes.shared())
    if not len(votes):
        return np.full(names, np.nan)
    key = votes.unit * names + votes.annotator
    _, own = np.unique(key, return_inverse=True)
    mine, times = np.bincount(own, votes.value)[own], np.bincount(own)[own]
    size = np.bincount(votes.unit)[votes.unit] - times
    others = (np.bincount(votes.unit, votes.value)[votes.unit] - mine) / size
    cell = np.unique(votes.group * names + votes.annotator, return_inverse=True)[1]

    def centred(column: np.ndarray) -> np.ndarray:
        return np.asarray(column - (np.bincount(cell, column) / np.bincount(cell))[cell])

    x, y = centred(votes.value), centred(others)
    xx, yy, xy = (np.bincount(votes.annotator, product, names) for product in (x * x, y * y, x * y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((xx > 1e-12) & (yy > 1e-12), xy / np.sqrt(xx * yy), np.nan)
