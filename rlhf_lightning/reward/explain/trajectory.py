"""Where along the response the score moved."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.reward.explain.view import View


@dataclass(frozen=True)
class Trajectory:
    """The score of each beginning of the response, as if it ended there.

    Attributes:
        words: how many words of the response each beginning has, from 0 to all. scores: normalised.
    """

    words: list[int]
    scores: list[float]


def trajectory(view: View, points: int = 33) -> Trajectory:
    """The scores of at most `points` beginnings of the response, at equal distances in words, the empty and the whole one included.

    Each is scored as a whole response, with the end-of-text behind it: a model was never asked about unfinished ones, so a beginning
    that breaks off inside a sentence may well score low.
    """
    count = sum(word.part == "response" for word in view.words)
    steps = min(count, max(points, 2) - 1)
    counts = sorted({round(count * step / steps) for step in range(steps + 1)}) if steps else [0]
    return Trajectory(counts, view.scores_until(counts).tolist())
