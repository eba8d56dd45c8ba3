"""Pairs of a prompt's responses to compare."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence


def sample_pairs(responses: Sequence[str], count: int, seed: str) -> list[tuple[int, int]]:
    """Indices of up to `count` random pairs of different texts.

    A response is in two pairs only if all are in one.
    """
    order = list(range(len(responses)))
    rng = random.Random(seed)
    rng.shuffle(order)
    # All pairs of the shuffled responses: neighbours first, 0-1, 2-3, ..., then the others at random.
    pairs = list(itertools.combinations(order, 2))
    rng.shuffle(pairs)
    neighbours = list(zip(order[::2], order[1::2], strict=False))
    pairs.sort(key=lambda pair: pair not in neighbours)
    return [pair for pair in pairs if responses[pair[0]] != responses[pair[1]]][:count]
