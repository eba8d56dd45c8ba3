"""VADER's own values, in the right places."""

from __future__ import annotations

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rlhf_lightning.reward.feature.sentiment import Sentiment


@pytest.mark.parametrize("text", ["I love it!", "This is horrible.", "The table has four legs."])
def test_is_vader(text):
    found = SentimentIntensityAnalyzer().polarity_scores(text)
    assert Sentiment()("ignored, terrible", text) == [found["compound"], found["pos"], found["neg"]]


def test_only_the_beginning_of_a_long_text_is_read():
    assert Sentiment(max_characters=10)("", "I love it." + " horrible" * 100) == Sentiment()("", "I love it.")
