"""N-grams of a response as features, with the vocabulary of the training texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.reward.regression.family import FeatureFamily, PlainText


@dataclass(kw_only=True, eq=False)
class NGrams(FeatureFamily):
    """The n-grams of the most training responses.

    Attributes:
        orders: lengths of the n-grams.
        max_features: size of the vocabulary: the n-grams of the most training responses, ties by name.
        min_texts: minimum number of different responses with an n-gram.
        value: "log": log(1 + count); "presence": 1; "share": log counts over the root of their sum of squares.
        strength: the joint deviation of all of them, relative to 1 of any other feature: their weight before the penalty.
    """

    orders: tuple[int, ...] = (1,)
    max_features: PositiveInt = 5000
    min_texts: PositiveInt = 3
    value: Literal["log", "presence", "share"] = "log"
    strength: PositiveFloat = 3.0
    option: ClassVar[str]

    def __post_init__(self) -> None:
        if not self.orders or min(self.orders) < 1:
            raise ConfigError(f"reward_feature.{self.option}.orders={list(self.orders)}: give lengths of n-grams, such as [1,2]")
        self.orders, self.joint_deviation = tuple(sorted(set(self.orders))), self.strength
        self.index: dict[str, int] = {}

    def split(self, text: str) -> Iterable[str]:
        """The n-grams of a text, with repetitions."""
        raise NotImplementedError

    def describe(self, gram: str) -> str:
        """The name of a feature from its n-gram."""
        raise NotImplementedError

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
