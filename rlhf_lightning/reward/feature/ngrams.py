"""Words and word pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._ngrams import NGrams, check_orders
from rlhf_lightning.reward.feature._words import words


@register("reward_feature", "ngrams")
class WordNGrams(NGrams):
    """Words and word pairs of the response as features.

    Args:
        orders: lengths of the n-grams: 1 words, 2 pairs.
        max_features: size of the vocabulary: the n-grams of the most training responses.
        min_texts: minimum number of different responses with an n-gram.
        value: "log": log(1 + count); "presence": 1; "share": log counts over the root of their sum of squares.
        strength: the joint deviation of all of them, relative to 1 of any other feature: their weight before the penalty.
    """

    def __init__(
        self,
        *,
        orders: list[int] = [1, 2],  # noqa: B006 (never changed)
        max_features: PositiveInt = 5000,
        min_texts: PositiveInt = 3,
        value: Literal["log", "presence", "share"] = "log",
        strength: PositiveFloat = 3.0,
    ) -> None:
        self.orders = check_orders(orders, "reward_feature.ngrams")
        super().__init__(self._split, lambda gram: f"word: {gram}", max_features, min_texts, value, strength)

    def _split(self, text: str) -> Iterator[str]:
        tokens = words(text)
        for order in self.orders:
            for start in range(len(tokens) - order + 1):
                yield tokens[start] if order == 1 else " ".join(tokens[start : start + order])
