"""How much a response repeats itself."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from itertools import groupby, pairwise

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import share, words
from rlhf_lightning.reward.regression.family import FeatureFamily


@register("reward_feature", "repetition")
class Repetition(FeatureFamily):
    """Repetition: repeated words, word pairs and lines, the longest run of one word, and how far the text can be compressed.

    Shares of what has been there before, 0 without repetition (1 - distinct-1 and distinct-2, Li et al. 2016). The run is the longest
    stretch of one word over and over, as a share of the words. Compression is 1 - compressed / plain bytes (zlib), which finds loops of
    any length.
    """

    names = ("repeated words", "repeated word pairs", "repeated lines", "longest run of one word", "compression")

    def __call__(self, prompt: str, response: str) -> list[float]:
        found = words(response)
        lines = [line.strip() for line in response.splitlines() if line.strip()]
        run = max((sum(1 for _ in same) for _, same in groupby(found)), default=0)
        plain = response.encode("utf-8", "replace")
        return [
            _repeated(found),
            _repeated(list(pairwise(found))),
            _repeated(lines),
            share(run - 1, len(found)),
            share(len(plain) - len(zlib.compress(plain)), len(plain)),
        ]


def _repeated(items: Sequence[Hashable]) -> float:
    return share(len(items) - len(set(items)), len(items))
