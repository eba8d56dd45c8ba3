"""Stretches of a few characters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._ngrams import NGrams, check_orders


@register("reward_feature", "character_ngrams")
class CharacterNGrams(NGrams):
    """Stretches of a few characters of the response, blanks and marks among them: for many languages, spelling and spacing.

    Args:
        orders: how many characters in a row.
        most: how many features; those that most training responses hold.
        fewest_texts: in how many different responses one must stand.
        value: "log": log(1 + count); "presence": 1; "share": log counts over the root of their sum of squares.
        strength: the deviation of all of them together, where any other feature has 1: how much they may say before the penalty holds them.
    """

    def __init__(
        self,
        *,
        orders: list[int] = [2, 3],  # noqa: B006 (never changed)
        most: PositiveInt = 5000,
        fewest_texts: PositiveInt = 5,
        value: Literal["log", "presence", "share"] = "log",
        strength: PositiveFloat = 3.0,
    ) -> None:
        self.orders = check_orders(orders, "reward_feature.character_ngrams")
        super().__init__(self._cut, lambda gram: f"characters: {gram!r}", most, fewest_texts, value, strength)

    def _cut(self, text: str) -> Iterator[str]:
        # The ends of a text are places too: "^T" begins, ".$" ends.
        whole = f"\x02{text}\x03"
        for order in self.orders:
            for at in range(len(whole) - order + 1):
                yield whole[at : at + order]
