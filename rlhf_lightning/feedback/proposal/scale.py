"""The scale of ratings, from their range."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.feedback.proposal.names import words_of

USUAL = (
    (1, 5), (0, 1), (1, 7), (1, 10), (0, 10), (0, 100), (0, 4), (0, 5), (0, 3), (1, 4), (1, 3), (1, 6), (-1, 1), (-2, 2), (-3, 3), (-4, 4),
    (-5, 5), (0, 200),
)  # fmt: skip
"""Scales that people are asked on, the most usual first."""
ENOUGH = 30
"""Ratings after which the ends of a short scale have mostly occurred."""


def guess_scale(values: Sequence[float], name: str = "") -> tuple[tuple[float, float], str]:
    """Guess the most usual scale whose ends the values nearly reach; return it with their range in words."""
    low, high = min(values), max(values)
    extent = f"the values are {low:g} to {high:g}"
    if {"star", "stars"} & set(words_of(name)) and low > 0 and high <= 5:
        return (1, 5), f"{extent}: stars from 1 to 5"
    fitting = [scale for scale in USUAL if scale[0] <= low and high <= scale[1]]
    if not fitting:
        return (low, high), f"{extent}, which is taken as the scale"
    if (low, high) in fitting and (len(values) >= ENOUGH or (low, high) in USUAL[:5] or (high - low >= 5 and len(values) >= 10)):
        return (low, high), extent
    is_whole = all(value == int(value) for value in values)
    near = [scale for scale in fitting if not (is_whole and scale == (0, 1) and high - low < 1)]
    narrow = min(near or fitting, key=lambda scale: (scale[1] - scale[0] > 1.5 * max(high - low, 3), USUAL.index(scale)))
    return narrow, f"{extent}; the scale is taken to be {narrow[0]:g} to {narrow[1]:g}"
