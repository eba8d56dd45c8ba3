"""Distribution of judgements, and the first records in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlhf_lightning.feedback.describe import describe_feedback
from rlhf_lightning.feedback.judgements import judgement_kind
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs

MAX_EXAMPLES = 3
MAX_BARS = 11
"""Bars of a histogram of ratings; more distinct values are binned."""


@dataclass
class Balance:
    """Counts of what was judged.

    Attributes:
        examples: by kind, the first records in words.
        ratings: by scale and aspect, the number of each value.
        thumbs: number of thumbs up and down.
        orders: comparisons by what decided them: rankings with a tie, and wins of the response that was shown first or later.
    """

    examples: dict[str, list[str]] = field(default_factory=dict)
    ratings: dict[str, Counter[float]] = field(default_factory=dict)
    thumbs: Counter[str] = field(default_factory=Counter)
    orders: Counter[str] = field(default_factory=Counter)


def measure_balance(feedback: Iterable[Feedback]) -> Balance:
    """Count ratings, thumbs, ties and wins by position, and describe the first records of each kind."""
    balance = Balance()
    for record in feedback:
        examples = balance.examples.setdefault(judgement_kind(record), [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(describe_feedback(record))
        judgement = record.judgement
        if isinstance(judgement, Rating):
            low, high = judgement.scale
            name = f"{judgement.aspect or 'rating'}, {low:g} to {high:g}"
            balance.ratings.setdefault(name, Counter())[judgement.value] += 1
        elif isinstance(judgement, Thumbs):
            balance.thumbs["up" if judgement.up else "down"] += 1
        elif isinstance(judgement, Ranking):
            balance.orders[_outcome(record, judgement)] += 1
    return balance


def _outcome(record: Feedback, judgement: Ranking) -> str:
    """A tie of all, or where the best response was shown."""
    ranks = [rank for rank in judgement.ranks if rank is not None]
    if len(set(ranks)) == 1:
        return "all tie"
    best = [i for i, rank in enumerate(judgement.ranks) if rank == min(ranks)]
    if len(best) > 1:
        return "a tie for the best"
    if record.positions is None:
        return "a best response, position unknown"
    return "the first shown is best" if record.positions[best[0]] == 0 else "one shown later is best"


def histogram(values: Counter[float]) -> list[tuple[str, int]]:
    """Bars of a histogram: one per value, or ten bins of equal width between the extremes."""
    if len(values) <= MAX_BARS:
        return [(f"{value:g}", values[value]) for value in sorted(values)]
    low, high = min(values), max(values)
    width = (high - low) / 10
    bins = Counter[int]()
    for value, count in values.items():
        bins[min(9, int((value - low) / width))] += count
    return [(f"{low + i * width:.3g} to {low + (i + 1) * width:.3g}", bins[i]) for i in range(10)]
