"""The check of an attribution: what happens to the score without a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_lightning.reward.explain.view import Occluded, View
from rlhf_lightning.statistics.ranks import rank_correlation


@dataclass(frozen=True)
class Occlusion:
    """The score falls by `drop` without the words from `first` on, before `end` (indices into the view's words)."""

    first: int
    end: int
    drop: float


def occlusions(view: View, score: float, how: Occluded = "remove", most: int = 64) -> list[Occlusion]:
    """What the score loses without each word, or each run of words where there are more than `most`.

    Args:
        score: of the whole text, normalised.
        how: "remove" takes the words out of the text, "replace" puts `neutral_token` in the place of each token.
    """
    count = len(view.words)
    each = -(-count // most) if count else 1
    runs = [range(first, min(first + each, count)) for first in range(0, count, each)]
    found = view.scores_without(runs, how)
    return [Occlusion(run.start, run.stop, score - left) for run, left in zip(runs, found.tolist(), strict=True)]


def rank_agreement(contributions: Sequence[float], drops: Sequence[Occlusion]) -> float | None:
    """Spearman's rank correlation of the words' contributions with what occlusion says; None for fewer than three, or without spread."""
    if len(drops) < 3:
        return None
    ours = np.array([sum(contributions[one.first : one.end]) for one in drops])
    return rank_correlation(ours, np.array([one.drop for one in drops]))
