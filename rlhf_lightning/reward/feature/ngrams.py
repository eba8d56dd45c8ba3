"""Words and word pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._ngrams import NGrams
from rlhf_lightning.reward.feature._words import words


@register("reward_feature", "ngrams")
@dataclass(kw_only=True, eq=False)
class WordNGrams(NGrams):
    """Words and word pairs of the response as features.

    Attributes:
        orders: lengths of the n-grams: 1 words, 2 pairs.
    """

    orders: tuple[int, ...] = (1, 2)
    option: ClassVar[str] = "ngrams"

    def describe(self, gram: str) -> str:
        return f"word: {gram}"

    def split(self, text: str) -> Iterator[str]:
        tokens = words(text)
        for order in self.orders:
            for start in range(len(tokens) - order + 1):
                yield tokens[start] if order == 1 else " ".join(tokens[start : start + order])
