"""N-grams of characters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._ngrams import NGrams, check_orders


@register("reward_feature", "character_ngrams")
class CharacterNGrams(NGrams):
    """Character n-grams of the response, with blanks and marks, for spelling, spacing and many languages.

    Args:
        orders: lengths of the n-grams.
        max_features: size of the vocabulary: the n-grams of the most training responses.
        min_texts: minimum number of different responses with an n-gram.
        value: "log": log(1 + count); "presence": 1; "share": log counts over the root of their sum of squares.
        strength: the joint deviation of all of them, relative to 1 of any other feature: their weight before the penalty.
    """

    def __init__(
        self,
        *,
        orders: list[int] = [2, 3],  # noqa: B006 (never changed)
        max_features: PositiveInt = 5000,
        min_texts: PositiveInt = 5,
        value: Literal["log", "presence", "share"] = "log",
        strength: PositiveFloat = 3.0,
    ) -> None:
        self.orders = check_orders(orders, "reward_feature.character_ngrams")
        super().__init__(self._split, lambda gram: f"characters: {gram!r}", max_features, min_texts, value, strength)

    def _split(self, text: str) -> Iterator[str]:
        # Marks of start and end make n-grams at the ends distinct.
        marked = f"\x02{text}\x03"
        for order in self.orders:
            for start in range(len(marked) - order + 1):
                yield marked[start : start + order]
