"""Reliability of annotators, from others' judgements of the same units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from rlhf_lightning.feedback.judgements import judgement_kind
from rlhf_lightning.feedback.quality.annotator_stats import AnnotatorStats, annotator_stats
from rlhf_lightning.feedback.quality.dawid_skene import DawidSkene, dawid_skene
from rlhf_lightning.feedback.quality.noisy_bradley_terry import noisy_bradley_terry
from rlhf_lightning.feedback.quality.rating_noise import rating_noise
from rlhf_lightning.feedback.quality.votes import Comparisons, Tables, Votes, judged_by_several, sample_by_prompt, tables_of
from rlhf_lightning.flow import Feedback

CAP = 50_000
SHRINK = 4.0
WEIGHT_SHRINK = 10.0


@dataclass(frozen=True)
class AnnotatorReliability:
    """One annotator.

    Attributes:
        name: as in the feedback.
        judgements: number of each kind.
        overlap: number of judgements of units that others judged too; a ranking of K counts as K - 1.
        reliability: by "comparison" (pairs and rankings), "rating" and "thumbs": 0 is a coin toss, 1 is always right. It is
            2 p - 1, where p is the probability of the right order of two units, or of the right label. Kinds without
            overlap are absent.
        combined: mean weighted by overlap; None without any.
        agreement: with others on the same unit: the fraction of equal verdicts and thumbs, the correlation of ratings with the
            others' mean.
        habits: see AnnotatorStats.
        median_seconds: of a judgement, if recorded.
    """

    name: str
    judgements: dict[str, int]
    overlap: float
    reliability: dict[str, float]
    combined: float | None
    agreement: dict[str, float]
    habits: AnnotatorStats
    median_seconds: float | None


def annotator_weights(feedback: Sequence[Feedback], *, cap: int = CAP) -> dict[str, float]:
    """Compute annotators' weights from their reliability, with mean 1 over their judgements.

    The weight is 1 without overlap and shrunk to 1 by ten judgements. Feedback beyond `cap` comparisons is sampled by prompt;
    annotators outside of the sample are absent and count as 1.
    """
    people = annotator_reliability(sample_by_prompt(feedback, cap).records)
    measured = [(person, person.combined) for person in people if person.combined is not None]
    overlap = sum(person.overlap for person, _ in measured)
    mean = sum(person.overlap * reliability for person, reliability in measured) / overlap if overlap else 0.0
    weights = {person.name: 1.0 for person in people}
    if mean <= 0:
        return weights
    for person, reliability in measured:
        weights[person.name] += person.overlap / (person.overlap + WEIGHT_SHRINK) * (reliability / mean - 1)
    count = {person.name: sum(person.judgements.values()) for person, _ in measured}
    mean_weight = sum(weights[name] * n for name, n in count.items()) / sum(count.values())
    for name in count:
        weights[name] /= mean_weight
    return weights


def annotator_reliability(feedback: Sequence[Feedback], tables: Tables | None = None) -> list[AnnotatorReliability]:
    """Estimate the reliability of every named annotator, in alphabetical order.

    Pairs with several judgements: Dawid and Skene's one-coin model, a tie being half a judgement each way. Pairs
    with one judgement, of responses that others compared too: the noisy Bradley-Terry model. Ratings: one-factor analysis of each
    data set and aspect. Thumbs: Dawid and Skene. All shrink to the mean of all annotators. Edits are ignored.
    """
    tables = tables_of(feedback) if tables is None else tables
    counts: dict[str, Counter[str]] = {name: Counter() for name in tables.annotators}
    seconds: dict[str, list[float]] = {}
    for record in feedback:
        if record.annotator is not None:
            counts.setdefault(record.annotator, Counter())[judgement_kind(record)] += 1
            if record.seconds is not None:
                seconds.setdefault(record.annotator, []).append(record.seconds)
    count_and_value = {
        "comparison": comparison_reliability(tables.pairs, len(tables.annotators) + 1),
        "rating": _rating_reliability(tables.ratings, len(tables.annotators) + 1),
        "thumbs": _thumbs_reliability(tables.thumbs, len(tables.annotators) + 1),
    }
    # [A] for each kind, NaN for annotators without a unit in common with others.
    agreements = {
        "comparison": _equal_share(tables.pairs, len(tables.annotators) + 1),
        "rating": _correlation(tables.ratings, len(tables.annotators) + 1),
        "thumbs": _equal_share(tables.thumbs, len(tables.annotators) + 1),
    }
    habits = annotator_stats(tables)
    index = {name: i for i, name in enumerate(tables.annotators)}
    records = []
    for name in sorted(counts):
        column = index.get(name)
        by_kind = {kind: (n[column], value[column]) for kind, (n, value) in count_and_value.items() if column is not None and n[column] > 0}
        overlap = float(sum(n for n, _ in by_kind.values()))
        combined = float(sum(n * value for n, value in by_kind.values()) / overlap) if overlap else None
        records.append(
            AnnotatorReliability(
                name=name,
                judgements=dict(counts[name]),
                overlap=overlap,
                reliability={kind: float(value) for kind, (_, value) in by_kind.items()},
                combined=combined,
                agreement={} if column is None else {kind: float(a[column]) for kind, a in agreements.items() if np.isfinite(a[column])},
                habits=AnnotatorStats() if column is None else habits[column],
                median_seconds=median(seconds[name]) if name in seconds else None,
            )
        )
    return records


def pair_truth(pairs: Comparisons) -> DawidSkene:
    """Fit the winner of each pair (label 1: the first); a tie is half a judgement each way."""
    tie = np.flatnonzero(pairs.value == 0.5)
    rows = np.concatenate([np.arange(len(pairs)), tie])
    label = np.concatenate([np.ceil(pairs.value), np.zeros(len(tie))]).astype(np.int64)
    weight = pairs.weight * np.where(pairs.value == 0.5, 0.5, 1.0)
    return dawid_skene(pairs.unit[rows], pairs.annotator[rows], label, labels=2, one_coin=True, shrink=SHRINK, weight=weight[rows])


def comparison_reliability(pairs: Comparisons, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """Return [A] the number of comparisons that overlap with others', and the estimated reliability."""
    count, value = np.zeros(annotators), np.zeros(annotators)
    is_shared = pairs.is_shared()
    if is_shared.any():
        coin = pair_truth(pairs.take(is_shared)).confusion[:, 1, 1]
        count += np.bincount(pairs.annotator[is_shared], pairs.weight[is_shared], annotators)
        value[: len(coin)] += count[: len(coin)] * np.clip(2 * coin - 1, 0, 1)
    is_linked = _is_linked(pairs) if len(pairs) else is_shared
    if (is_linked & ~is_shared).any():
        linked = pairs.take(is_linked)
        model = noisy_bradley_terry(
            linked.first,
            linked.second,
            linked.annotator,
            linked.value,
            display_order=linked.display_order,
            weight=linked.weight,
        )
        unshared = is_linked & ~is_shared
        extra_count = np.bincount(pairs.annotator[unshared], pairs.weight[unshared], annotators)
        value[: len(model.skill)] += extra_count[: len(model.skill)] * model.skill
        count += extra_count
    return count, value / np.clip(count, 1e-9, None)


def _is_linked(pairs: Comparisons) -> np.ndarray:
    """Return a mask [N] of pairs of which both responses were compared by other annotators too."""
    responses, annotators = np.concatenate([pairs.first, pairs.second]), np.concatenate([pairs.annotator, pairs.annotator])
    by_several = judged_by_several(responses, annotators)
    return np.asarray(by_several[pairs.first] & by_several[pairs.second])


def _rating_reliability(ratings: Votes, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """Like `comparison_reliability`, for ratings.

    Normal ratings with correlation rho to the truth order two units correctly with p = 1/2 + asin(rho) / pi.
    """
    count, value = np.zeros(annotators), np.zeros(annotators)
    is_shared = ratings.take(ratings.is_shared())
    for group in np.unique(is_shared.group):
        votes = is_shared.take(is_shared.group == group)
        model = rating_noise(np.unique(votes.unit, return_inverse=True)[1], votes.annotator, votes.value)
        n = np.bincount(votes.annotator, minlength=annotators)
        order = 2 / np.pi * np.arcsin(np.sqrt(model.reliability))
        value[: len(order)] += n[: len(order)] * order
        count += n
    return count, value / np.clip(count, 1e-9, None)


def _thumbs_reliability(thumbs: Votes, annotators: int) -> tuple[np.ndarray, np.ndarray]:
    """Like `comparison_reliability`, for thumbs; p is the mean accuracy on good and on bad responses."""
    count, value = np.zeros(annotators), np.zeros(annotators)
    votes = thumbs.take(thumbs.is_shared())
    if len(votes):
        confusion = thumbs_truth(votes).confusion
        count += np.bincount(votes.annotator, minlength=annotators)
        value[: len(confusion)] = np.clip(confusion[:, 0, 0] + confusion[:, 1, 1] - 1, 0, 1)
    return count, value


def thumbs_truth(thumbs: Votes) -> DawidSkene:
    """Fit the true thumb of each response (label 1: up) and each annotator's confusion."""
    return dawid_skene(thumbs.unit, thumbs.annotator, thumbs.value.astype(np.int64), labels=2, shrink=SHRINK)


def _equal_share(votes: Votes, names: int) -> np.ndarray:
    """Return [A] the fraction of others' judgements of the same units that are equal."""
    if not len(votes):
        return np.full(names, np.nan)
    size = int(votes.unit.max()) + 1
    code = np.round(2 * votes.value).astype(np.int64)

    def group_size(key: np.ndarray) -> np.ndarray:
        _, group, counts = np.unique(key, return_inverse=True, return_counts=True)
        return np.asarray(counts[group])

    annotator_unit = votes.unit * names + votes.annotator
    equal = group_size(votes.unit * 3 + code) - group_size(annotator_unit * 3 + code)
    other_count = np.bincount(votes.unit, minlength=size)[votes.unit] - group_size(annotator_unit)
    total = np.bincount(votes.annotator, other_count, names)
    return np.where(total > 0, np.bincount(votes.annotator, equal, names) / np.clip(total, 1, None), np.nan)


def _correlation(votes: Votes, names: int) -> np.ndarray:
    """Return [A] Pearson's correlation with the others' mean rating, within data set and aspect."""
    votes = votes.take(votes.is_shared())
    if not len(votes):
        return np.full(names, np.nan)
    key = votes.unit * names + votes.annotator
    _, cell_of_vote = np.unique(key, return_inverse=True)
    own_sum, own_count = np.bincount(cell_of_vote, votes.value)[cell_of_vote], np.bincount(cell_of_vote)[cell_of_vote]
    other_count = np.bincount(votes.unit)[votes.unit] - own_count
    others_mean = (np.bincount(votes.unit, votes.value)[votes.unit] - own_sum) / other_count
    group_cell = np.unique(votes.group * names + votes.annotator, return_inverse=True)[1]

    def center(column: np.ndarray) -> np.ndarray:
        return np.asarray(column - (np.bincount(group_cell, column) / np.bincount(group_cell))[group_cell])

    x, y = center(votes.value), center(others_mean)
    xx, yy, xy = (np.bincount(votes.annotator, product, names) for product in (x * x, y * y, x * y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((xx > 1e-12) & (yy > 1e-12), xy / np.sqrt(xx * yy), np.nan)
