"""The sentiment of written comments."""

from __future__ import annotations

from functools import cache
from typing import Any

from rlhf_lightning.registry import register


@register("feedback_comment", "vader")
def vader(text: str) -> float:
    """From -1 (finds it bad) to 1 (finds it good) by VADER's word list and rules; 0 for texts without words of feeling.

    Made for short English texts (C. Hutto and E. Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social
    media text", 2014): its compound score. It hears the tone of a comment, not its argument.
    """
    return float(_analyser().polarity_scores(text)["compound"])


@cache
def _analyser() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
