"""The length of a response."""

from __future__ import annotations

import math

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import sentences, words
from rlhf_lightning.reward.regression.family import FeatureFamily


@register("reward_feature", "length")
class Length(FeatureFamily):
    """Length: log(1 + n) of characters, words, sentences and lines, and its distance from the prompt's.

    The square of the log characters lets the score fall beyond a best length. The distance from the prompt's length, |log of the ratio of
    characters|, is for translation and rewriting.
    """

    names = (
        "log characters",
        "log characters squared",
        "log words",
        "log sentences",
        "log lines",
        "distance from the prompt's length",
    )

    def __call__(self, prompt: str, response: str) -> list[float]:
        characters = math.log1p(len(response))
        return [
            characters,
            characters**2,
            math.log1p(len(words(response))),
            math.log1p(sentences(response)),
            math.log1p(len(response.splitlines())),
            abs(characters - math.log1p(len(prompt))),
        ]
