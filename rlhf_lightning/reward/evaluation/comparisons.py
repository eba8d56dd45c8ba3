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

MOST_PAIRS = 2_000
"""Pairs of ratings compared of one prompt, annotator and aspect; beyond, a fixed draw of so many: their number grows with the square."""


class Comparison(NamedTuple):
    """One response is better than another to the same prompt: by what kind of judgement, in which data set."""

    kind: str
    prompt: Prompt
    better: str
    worse: str
    source: str


def comparisons(judged: Iterable[Judged]) -> list[Comparison]:
    """Every order that the feedback states; ratings are compared within a prompt, annotator, aspect and data set, at most MOST_PAIRS."""
    return [comparison for comparison, _ in weighted_comparisons(judged)]


def weighted_comparisons(judged: Iterable[Judged], smallest_gap: float = 0.0) -> list[tuple[Comparison, float]]:
    """`comparisons`, each with what it counts.

    A comparison of K responses counts 2 / K of its judgement's weight: a pair or an edit all of it, a ranking of K without ties K - 1
    times its weight in all, as many as its Plackett-Luce likelihood has factors. K ratings of a prompt by one annotator are such a
    ranking, drawn pairs standing for all; two of them weigh the mean of their weights.

    Args:
        smallest_gap: ratings that differ by no more than this, in standard deviations, compare nothing.
    """
    found: list[tuple[Comparison, float]] = []
    rated: dict[tuple[Prompt, str | None, int, str], list[tuple[float, str, float]]] = defaultdict(list)
    for record in judged:
        feedback = record.feedback
        source = data_set(feedback)
        for better, worse in standardise.comparisons(feedback):
            texts = feedback.responses
            comparison = Comparison(judgement_kind(feedback), feedback.prompt, texts[better], texts[worse], source)
            found.append((comparison, feedback.weight * 2 / _compared(feedback)))
        if record.z_score is not None:
            rated[feedback.prompt, feedback.annotator, record.aspect, source].append(
                (record.z_score, feedback.responses[0], feedback.weight)
            )
    for (prompt, _, _, source), given in rated.items():
        pairs = list(_pairs(len(given)))
        for i, j in pairs:
            (z_1, text_1, weight_1), (z_2, text_2, weight_2) = given[i], given[j]
            if abs(z_1 - z_2) > smallest_gap and text_1 != text_2:
                comparison = Comparison("rating", prompt, *((text_1, text_2) if z_1 > z_2 else (text_2, text_1)), source)
                found.append((comparison, (weight_1 + weight_2) / 2 * (len(given) - 1) / len(pairs)))
    return found


def _compared(feedback: Feedback) -> int:
    """How many responses a ranking or an edit puts in order."""
    judgement = feedback.judgement
    return sum(rank is not None for rank in judgement.ranks) if isinstance(judgement, Ranking) else len(feedback.responses)


def _pairs(count: int) -> Iterable[tuple[int, int]]:
    if count * (count - 1) // 2 <= MOST_PAIRS:
        return itertools.combinations(range(count), 2)
    first, apart = np.random.default_rng(count).integers((0, 1), (count, count), (MOST_PAIRS, 2)).T
    return zip(first.tolist(), ((first + apart) % count).tolist(), strict=True)
