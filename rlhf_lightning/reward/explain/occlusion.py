"""Occlusion, a check of attributions: the score without a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_lightning.reward.explain.view import OcclusionMethod, View
from rlhf_lightning.statistics.ranks import rank_correlation


@dataclass(frozen=True)
class Occlusion:
    """The drop of the score without the words first:end of the view."""

    first: int
    end: int
    drop: float


def occlusions(view: View, score: float, method: OcclusionMethod = "remove", max_occlusions: int = 64) -> list[Occlusion]:
    """The drops of the score without each word, or each run of words.

    Args:
        score: of the full text, normalised.
        method: "remove" takes the words out of the text, "replace" puts `neutral_token` in the place of each token.
        max_occlusions: of more words, runs of several are removed at a time.
    """
    count = len(view.words)
    run_length = -(-count // max_occlusions) if count else 1
    runs = [range(first, min(first + run_length, count)) for first in range(0, count, run_length)]
    scores = view.scores_without(runs, method)
    return [Occlusion(run.start, run.stop, score - other) for run, other in zip(runs, scores.tolist(), strict=True)]


def rank_agreement(contributions: Sequence[float], drops: Sequence[Occlusion]) -> float | None:
    """Spearman's correlation of the contributions with the drops; None for fewer than three or constants."""
    if len(drops) < 3:
        return None
    ours = np.array([sum(contributions[run.first : run.end]) for run in drops])
    return rank_correlation(ours, np.array([run.drop for run in drops]))
