"""N-grams of a response as features: the vocabulary of the training texts, and what of it a text holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.reward.regression.family import FeatureFamily, PlainText

Value = Literal["log", "presence", "share"]


class NGrams(FeatureFamily):
    """The n-grams that most training responses hold.

    Args:
        cut: the n-grams of a text, as often as they stand in it.
        shown: the name of a feature from its n-gram.
        most: how many features; those of the most responses, then by name.
        fewest_texts: in how many different responses an n-gram must stand.
        value: "log": log(1 + count); "presence": 1; "share": of the text's n-grams, by the root of the sum of squares.
        strength: the deviation that all n-grams together get: how much they may say before the penalty holds them back.
    """

    def __init__(
        self, cut: Callable[[str], Iterable[str]], shown: Callable[[str], str], most: int, fewest_texts: int, value: Value, strength: float
    ) -> None:
        self.cut, self.shown, self.most, self.fewest_texts, self.value, self.joint_deviation = (
            cut,
            shown,
            most,
            fewest_texts,
            value,
            strength,
        )
        self.place: dict[str, int] = {}

    def fit(self, texts: Sequence[PlainText]) -> None:
        responses = dict.fromkeys(response for _, response in texts)
        found: Counter[str] = Counter()
        for response in responses:
            found.update(set(self.cut(response)))
        common = [(gram, n) for gram, n in found.items() if self.fewest_texts <= n < len(responses)]
        common.sort(key=lambda entry: (-entry[1], entry[0]))
        self._name([gram for gram, _ in common[: self.most]])

    def _name(self, grams: Sequence[str]) -> None:
        self.place = {gram: i for i, gram in enumerate(grams)}
        self.names = [self.shown(gram) for gram in grams]

    def __call__(self, prompt: str, response: str) -> dict[int, float]:
        counts: Counter[int] = Counter()
        for gram in self.cut(response):
            at = self.place.get(gram)
            if at is not None:
                counts[at] += 1
        if self.value == "presence":
            return dict.fromkeys(counts, 1.0)
        row = {at: math.log1p(n) for at, n in counts.items()}
        if self.value == "share":
            norm = math.sqrt(math.fsum(value * value for value in row.values()))
            row = {at: value / norm for at, value in row.items()}
        return row

    def state(self) -> dict[str, Any]:
        return {"ngrams": list(self.place)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._name(state["ngrams"])


def check_orders(orders: Sequence[int], key: str) -> tuple[int, ...]:
    """The orders, each once. Raises ConfigError for none, and for one below 1."""
    if not orders or min(orders) < 1:
        raise ConfigError(f"{key}.orders={list(orders)}: give how many to take in a row, such as [1,2]")
    return tuple(sorted(set(orders)))
