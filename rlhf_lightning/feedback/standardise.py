"""Standardised judgements: z-scores, levels, comparisons, changed spans. Pure functions."""

from __future__ import annotations

import difflib
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating

MIN_RATINGS = 3
# Scripts written without spaces are compared letter by letter, others word by word.
_ALONE = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
PIECES = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+|\s+|[^\w\s]")


def z_scores(unit_ratings: Sequence[float], annotators: Sequence[int], aspects: Sequence[int]) -> list[float]:
    """Standardise ratings by their annotator's mean and deviation in the aspect.

    The deviation is the population's (divided by n). For annotators with fewer than three ratings of the aspect or without variance,
    and for ratings without an annotator, mean and deviation are those of all ratings of the aspect; if these don't vary
    either, the score is 0.

    Args:
        unit_ratings: ratings on 0..1. annotators, aspects: numbers of each rating's annotator and aspect; annotator 0 is unknown.
    """
    of_aspect: dict[int, array[float]] = {}
    of_annotator: dict[tuple[int, int], array[float]] = {}
    for unit, annotator, aspect in zip(unit_ratings, annotators, aspects, strict=True):
        of_aspect.setdefault(aspect, array("d")).append(unit)
        if annotator:
            of_annotator.setdefault((annotator, aspect), array("d")).append(unit)
    pooled = {aspect: _moments(values) for aspect, values in of_aspect.items()}
    annotator_moments = {key: _moments(values) for key, values in of_annotator.items() if len(values) >= MIN_RATINGS}
    scores = []
    for unit, annotator, aspect in zip(unit_ratings, annotators, aspects, strict=True):
        mean, deviation = annotator_moments.get((annotator, aspect), pooled[aspect])
        if deviation == 0:
            mean, deviation = pooled[aspect]
        scores.append((unit - mean) / deviation if deviation > 0 else 0.0)
    return scores


def unit_rating(rating: Rating) -> float:
    """Map the rating from its scale to 0..1."""
    low, high = rating.scale
    if math.isinf(high - low):
        # The width of the scale overflows; half of it doesn't.
        low, high, value = low / 2, high / 2, rating.value / 2
        return (value - low) / (high - low)
    return (rating.value - low) / (high - low)


def ranking_levels(ranking: Ranking) -> list[list[int]]:
    """Group the indices of the ranked responses by rank, best first."""
    groups: dict[int, list[int]] = {}
    for index, rank in enumerate(ranking.ranks):
        if rank is not None:
            groups.setdefault(rank, []).append(index)
    return [groups[rank] for rank in sorted(groups)]


def comparisons(record: Feedback) -> list[tuple[int, int]]:
    """Return (better, worse) indices of the responses for every pair that the record orders.

    Ties, unranked responses and equal texts give none. An edited text beats its original; other kinds compare nothing.
    """
    judgement, texts = record.judgement, record.responses
    if not isinstance(judgement, Ranking | Edit):
        return []
    ranks = judgement.ranks if isinstance(judgement, Ranking) else (1, 0)
    ranked = [(i, rank) for i, rank in enumerate(ranks) if rank is not None]
    return [(i, j) for i, rank_i in ranked for j, rank_j in ranked if rank_i < rank_j and texts[i] != texts[j]]


@dataclass(frozen=True)
class SpanChange:
    """original[start:end] became edited[edited_start:edited_end], in characters; at most one is empty."""

    start: int
    end: int
    edited_start: int
    edited_end: int


def edit_spans(original: str, edited: str) -> list[SpanChange]:
    """Diff two texts by words, blanks and punctuation marks (difflib), from left to right.

    Replacing the spans turns the original into the edited text. Above 2,000 pieces difflib's autojunk ignores very common ones,
    trading precision for time, which is quadratic in the length.
    """
    before, after = PIECES.findall(original), PIECES.findall(edited)
    at, to = _offsets(before), _offsets(after)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=len(before) + len(after) > 2000)
    return [SpanChange(at[a], at[b], to[c], to[d]) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _offsets(pieces: Sequence[str]) -> list[int]:
    offsets = [0]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    return offsets


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and population deviation, exactly 0 for equal values."""
    if not values or min(values) == max(values):
        return (values[0] if values else 0.0), 0.0
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
