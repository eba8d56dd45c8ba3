"""Words of a user's list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lightning.config.schema import FilePath
from rlhf_lightning.feedback.words import read_lexicon
from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import share, words
from rlhf_lightning.reward.regression.family import FeatureFamily, PlainText


@register("reward_feature", "lexicon")
class Lexicon(FeatureFamily):
    """A word list: sum and mean of the valences of the response's words, and shares above and below 0.

    The list is saved with the model.

    Args:
        path: a text file, one `word<tab>valence` a line (the layout of VADER's lexicon); further columns are ignored.
    """

    names = ("sum", "mean", "words above 0", "words below 0")

    def __init__(self, *, path: FilePath) -> None:
        self.path = path
        self.valence: dict[str, float] = {}

    def fit(self, texts: Sequence[PlainText]) -> None:
        self.valence = read_lexicon(Path(self.path), "reward_feature.lexicon.path")

    def __call__(self, prompt: str, response: str) -> list[float]:
        values = [self.valence.get(word, 0.0) for word in words(response)]
        total = math.fsum(values)
        return [
            total / math.sqrt(total * total + 15.0),
            share(total, len(values)),
            share(sum(value > 0 for value in values), len(values)),
            share(sum(value < 0 for value in values), len(values)),
        ]

    def state(self) -> dict[str, Any]:
        return {"valence": self.valence}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.valence = dict(state["valence"])
