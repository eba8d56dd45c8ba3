"""The score along the response."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.reward.explain.view import View


@dataclass(frozen=True)
class Trajectory:
    """The score of each beginning of the response as a complete one.

    Attributes:
        words: number of words of each beginning, from 0 to all. scores: normalised.
    """

    words: list[int]
    scores: list[float]


def trajectory(view: View, points: int = 33) -> Trajectory:
    """The scores of at most `points` beginnings of the response, equally spaced in words.

    The empty and the full response are included. Each is scored as a complete response, with the end-of-text after it: a beginning that
    breaks off inside a sentence may score low, since models aren't trained on such texts.
    """
    count = sum(word.part == "response" for word in view.words)
    steps = min(count, max(points, 2) - 1)
    counts = sorted({round(count * step / steps) for step in range(steps + 1)}) if steps else [0]
    return Trajectory(counts, view.scores_until(counts).tolist())
