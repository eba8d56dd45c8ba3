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
    """Words and word pairs of the response, each a feature of its own.

    Args:
        orders: how many words in a row: 1 words, 2 pairs.
        most: how many features; those that most training responses hold.
        fewest_texts: in how many different responses one must stand.
        value: "log": log(1 + count); "presence": 1; "share": log counts over the root of their sum of squares.
        strength: the deviation of all of them together, where any other feature has 1: how much they may say before the penalty holds them.
    """

    def __init__(
        self,
        *,
        orders: list[int] = [1, 2],  # noqa: B006 (never changed)
        most: PositiveInt = 5000,
        fewest_texts: PositiveInt = 3,
        value: Literal["log", "presence", "share"] = "log",
        strength: PositiveFloat = 3.0,
    ) -> None:
        self.orders = check_orders(orders, "reward_feature.ngrams")
        super().__init__(self._cut, lambda gram: f"word: {gram}", most, fewest_texts, value, strength)

    def _cut(self, text: str) -> Iterator[str]:
        found = words(text)
        for order in self.orders:
            for at in range(len(found) - order + 1):
                yield found[at] if order == 1 else " ".join(found[at : at + order])
