"""Every order between two responses that feedback states, whatever its kind."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rlhf_lightning.feedback import standardise
from rlhf_lightning.feedback.judgements import Judged, judgement_kind
from rlhf_lightning.feedback.quality.votes import data_set
from rlhf_lightning.flow import Feedback, Prompt, Ranking

MAX_PAIRS = 2_000
"""Maximum number of pairs of ratings per prompt, annotator and aspect; of more, a fixed random sample is compared."""


class Comparison(NamedTuple):
    """A better and a worse response to a prompt, with the kind of the judgement and its data set."""

    kind: str
    prompt: Prompt
    better: str
    worse: str
    source: str


def judged_comparisons(judged: Iterable[Judged]) -> list[Comparison]:
    """Every stated order; ratings are compared within a prompt, annotator, aspect and data set."""
    return [comparison for comparison, _ in weighted_comparisons(judged)]


def weighted_comparisons(judged: Iterable[Judged], min_gap: float = 0.0) -> list[tuple[Comparison, float]]:
    """`judged_comparisons` with their weights.

    A comparison of K responses has 2 / K of its judgement's weight: a pair or an edit the full weight, a ranking of K without ties K - 1
    times its weight in total, the number of factors of its Plackett-Luce likelihood. K ratings of a prompt by one annotator are such a
    ranking, with sampled pairs representing all; two of them have the mean of their weights.

    Args:
        min_gap: ratings that differ by no more than this, in standard deviations, make no comparison.
    """
    weighted: list[tuple[Comparison, float]] = []
    rated: dict[tuple[Prompt, str | None, int, str], list[tuple[float, str, float]]] = defaultdict(list)
    for record in judged:
        feedback = record.feedback
        source = data_set(feedback)
        for better, worse in standardise.comparisons(feedback):
            texts = feedback.responses
            comparison = Comparison(judgement_kind(feedback), feedback.prompt, texts[better], texts[worse], source)
            weighted.append((comparison, feedback.weight * 2 / _ordered_count(feedback)))
        if record.z_score is not None:
            rated[feedback.prompt, feedback.annotator, record.aspect, source].append(
                (record.z_score, feedback.responses[0], feedback.weight)
            )
    for (prompt, _, _, source), ratings in rated.items():
        pairs = list(_pairs(len(ratings)))
        for i, j in pairs:
            (z_1, text_1, weight_1), (z_2, text_2, weight_2) = ratings[i], ratings[j]
            if abs(z_1 - z_2) > min_gap and text_1 != text_2:
                comparison = Comparison("rating", prompt, *((text_1, text_2) if z_1 > z_2 else (text_2, text_1)), source)
                weighted.append((comparison, (weight_1 + weight_2) / 2 * (len(ratings) - 1) / len(pairs)))
    return weighted


def _ordered_count(feedback: Feedback) -> int:
    """Number of responses that a ranking or an edit puts in order."""
    judgement = feedback.judgement
    return sum(rank is not None for rank in judgement.ranks) if isinstance(judgement, Ranking) else len(feedback.responses)


def _pairs(count: int) -> Iterable[tuple[int, int]]:
    if count * (count - 1) // 2 <= MAX_PAIRS:
        return itertools.combinations(range(count), 2)
    first, offset = np.random.default_rng(count).integers((0, 1), (count, count), (MAX_PAIRS, 2)).T
    return zip(first.tolist(), ((first + offset) % count).tolist(), strict=True)
