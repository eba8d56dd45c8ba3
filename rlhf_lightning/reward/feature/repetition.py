"""The repetition within a response."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from itertools import groupby, pairwise

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import share, words
from rlhf_lightning.reward.regression.family import FeatureFamily


@register("reward_feature", "repetition")
class Repetition(FeatureFamily):
    """Repetition: repeated words, word pairs and lines, the longest run of one word, and compressibility.

    Shares of repeated items, 0 without repetition (1 - distinct-1 and distinct-2, Li et al. 2016). The run is the longest repetition of
    one word, as a share of the words. Compression is 1 - compressed / plain bytes (zlib): it detects loops of any length.
    """

    names = ("repeated words", "repeated word pairs", "repeated lines", "longest run of one word", "compression")

    def __call__(self, prompt: str, response: str) -> list[float]:
        tokens = words(response)
        lines = [line.strip() for line in response.splitlines() if line.strip()]
        run = max((sum(1 for _ in same) for _, same in groupby(tokens)), default=0)
        plain = response.encode("utf-8", "replace")
        return [
            _repeated_share(tokens),
            _repeated_share(list(pairwise(tokens))),
            _repeated_share(lines),
            share(run - 1, len(tokens)),
            share(len(plain) - len(zlib.compress(plain)), len(plain)),
        ]


def _repeated_share(items: Sequence[Hashable]) -> float:
    return share(len(items) - len(set(items)), len(items))
