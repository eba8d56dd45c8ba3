"""The readability of a response."""

from __future__ import annotations

from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._words import sentences, share, words
from rlhf_lightning.reward.regression.family import FeatureFamily


@register("reward_feature", "readability")
class Readability(FeatureFamily):
    """Readability: mean word length, words per sentence, and the share of long words.

    The parts of the LIX formula (Björnsson 1968), which counts no syllables and so serves many languages; long is more than six letters.
    """

    names = ("mean word length", "words per sentence", "long words")

    def __call__(self, prompt: str, response: str) -> list[float]:
        tokens = words(response)
        return [
            share(sum(map(len, tokens)), len(tokens)),
            share(len(tokens), max(1, sentences(response))),
            share(sum(len(word) > 6 for word in tokens), len(tokens)),
        ]
