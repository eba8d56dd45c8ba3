"""The sentiment of a response."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from rlhf_lightning.registry import register
from rlhf_lightning.reward.regression.family import FeatureFamily


@register("reward_feature", "sentiment")
class Sentiment(FeatureFamily):
    """Sentiment: VADER's compound score and its shares of positive and negative words.

    For English (C. Hutto and E. Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text", 2014); 0 for
    texts without its words.

    Args:
        max_characters: a longer response is cut, as VADER's time grows faster than linearly.
    """

    names = ("compound", "positive words", "negative words")

    def __init__(self, *, max_characters: PositiveInt = 5000) -> None:
        self.max_characters = max_characters
        self.analyser: Any = None

    def __call__(self, prompt: str, response: str) -> list[float]:
        if self.analyser is None:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

            self.analyser = SentimentIntensityAnalyzer()
        scores = self.analyser.polarity_scores(response[: self.max_characters])
        return [float(scores[key]) for key in ("compound", "pos", "neg")]
