"""N-grams of a response as features, with the vocabulary of the training texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.reward.regression.family import FeatureFamily, PlainText

NGramValue = Literal["log", "presence", "share"]


class NGrams(FeatureFamily):
    """The n-grams of the most training responses.

    Args:
        split: the n-grams of a text, with repetitions.
        describe: the name of a feature from its n-gram.
        max_features: size of the vocabulary: the n-grams of the most responses, ties by name.
        min_texts: minimum number of different responses with an n-gram.
        value: "log": log(1 + count); "presence": 1; "share": of the text's n-grams, by the root of the sum of squares.
        strength: the joint deviation of all n-grams, their weight relative to other features before the penalty.
    """

    def __init__(
        self,
        split: Callable[[str], Iterable[str]],
        describe: Callable[[str], str],
        max_features: int,
        min_texts: int,
        value: NGramValue,
        strength: float,
    ) -> None:
        self.split, self.describe, self.max_features, self.min_texts = split, describe, max_features, min_texts
        self.value, self.joint_deviation = value, strength
        self.index: dict[str, int] = {}

    def fit(self, texts: Sequence[PlainText]) -> None:
        responses = dict.fromkeys(response for _, response in texts)
        counts: Counter[str] = Counter()
        for response in responses:
            counts.update(set(self.split(response)))
        common = [(gram, n) for gram, n in counts.items() if self.min_texts <= n < len(responses)]
        common.sort(key=lambda entry: (-entry[1], entry[0]))
        self._set_vocabulary([gram for gram, _ in common[: self.max_features]])

    def _set_vocabulary(self, grams: Sequence[str]) -> None:
        self.index = {gram: i for i, gram in enumerate(grams)}
        self.names = [self.describe(gram) for gram in grams]

    def __call__(self, prompt: str, response: str) -> dict[int, float]:
        counts: Counter[int] = Counter()
        for gram in self.split(response):
            index = self.index.get(gram)
            if index is not None:
                counts[index] += 1
        if self.value == "presence":
            return dict.fromkeys(counts, 1.0)
        row = {index: math.log1p(n) for index, n in counts.items()}
        if self.value == "share":
            norm = math.sqrt(math.fsum(value * value for value in row.values()))
            row = {index: value / norm for index, value in row.items()}
        return row

    def state(self) -> dict[str, Any]:
        return {"ngrams": list(self.index)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._set_vocabulary(state["ngrams"])


def check_orders(orders: Sequence[int], key: str) -> tuple[int, ...]:
    """Sort and deduplicate the orders. Raises ConfigError for none, and for one below 1."""
    if not orders or min(orders) < 1:
        raise ConfigError(f"{key}.orders={list(orders)}: give lengths of n-grams, such as [1,2]")
    return tuple(sorted(set(orders)))
