"""The sentiment of written comments."""

from __future__ import annotations

from functools import cache
from typing import Any

from rlhf_lightning.registry import register


@register("feedback_comment", "vader")
def vader(text: str) -> float:
    """VADER's compound sentiment score, -1 (negative) to 1 (positive); 0 without sentiment words.

    Made for short English texts (C. Hutto and E. Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social
    media text", 2014). It measures the tone of a comment, not its argument.
    """
    return float(_analyser().polarity_scores(text)["compound"])


@cache
def _analyser() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
