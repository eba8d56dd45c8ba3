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
from rlhf_lightning.flow import Prompt

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
    found = []
    rated: dict[tuple[Prompt, str | None, int, str], list[tuple[float, str]]] = defaultdict(list)
    for record in judged:
        feedback = record.feedback
        source = data_set(feedback)
        for better, worse in standardise.comparisons(feedback):
            texts = feedback.responses
            found.append(Comparison(judgement_kind(feedback), feedback.prompt, texts[better], texts[worse], source))
        if record.z_score is not None:
            rated[feedback.prompt, feedback.annotator, record.aspect, source].append((record.z_score, feedback.responses[0]))
    for (prompt, _, _, source), given in rated.items():
        for i, j in _pairs(len(given)):
            (z_1, text_1), (z_2, text_2) = given[i], given[j]
            if z_1 != z_2 and text_1 != text_2:
                found.append(Comparison("rating", prompt, *((text_1, text_2) if z_1 > z_2 else (text_2, text_1)), source))
    return found


def _pairs(count: int) -> Iterable[tuple[int, int]]:
    if count * (count - 1) // 2 <= MOST_PAIRS:
        return itertools.combinations(range(count), 2)
    first, apart = np.random.default_rng(count).integers((0, 1), (count, count), (MOST_PAIRS, 2)).T
    return zip(first.tolist(), ((first + apart) % count).tolist(), strict=True)
