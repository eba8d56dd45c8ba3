"""N-grams of characters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import PositiveInt

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._ngrams import NGrams


@register("reward_feature", "character_ngrams")
@dataclass(kw_only=True, eq=False)
class CharacterNGrams(NGrams):
    """Character n-grams of the response, with blanks and marks, for spelling, spacing and many languages."""

    orders: tuple[int, ...] = (2, 3)
    min_texts: PositiveInt = 5
    option: ClassVar[str] = "character_ngrams"

    def describe(self, gram: str) -> str:
        return f"characters: {gram!r}"

    def split(self, text: str) -> Iterator[str]:
        # Marks of start and end make n-grams at the ends distinct.
        marked = f"\x02{text}\x03"
        for order in self.orders:
            for start in range(len(marked) - order + 1):
                yield marked[start : start + order]
