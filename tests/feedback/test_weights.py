"""Comments become weak ratings, judgements are weighed by their annotators."""

from __future__ import annotations

import pytest

from rlhf_lightning.feedback.weights import SENTIMENT_ASPECT, WeightedFeedback
from rlhf_lightning.flow import Comment, Feedback, Rating, Thumbs


def said(text: str) -> float:
    return {"good": 0.5, "superb": 7.0}[text]


@pytest.fixture
def feedback() -> list[Feedback]:
    return [
        Feedback(prompt="p", responses=("a",), judgement=Thumbs(up=True), annotator="anna", weight=2.0),
        Feedback(prompt="p", responses=("a",), judgement=Comment(text="good"), annotator="bob"),
        Feedback(prompt="p", responses=("a",), judgement=Comment(text="superb")),
    ]


def test_comments_become_ratings_that_count_less(feedback: list[Feedback]) -> None:
    weighed = WeightedFeedback(feedback, {}, said, 0.25)
    assert weighed[0] == feedback[0]
    assert weighed[1].judgement == Rating(value=0.5, scale=(-1, 1), aspect=SENTIMENT_ASPECT)
    assert [record.weight for record in weighed] == [2.0, 0.25, 0.25]


def test_a_sentiment_off_the_scale_is_brought_to_its_end(feedback: list[Feedback]) -> None:
    judgement = WeightedFeedback(feedback, {}, said, 1.0)[2].judgement
    assert isinstance(judgement, Rating)
    assert judgement.value == 1


def test_weights_of_annotators_multiply(feedback: list[Feedback]) -> None:
    weighed = WeightedFeedback(feedback, {"anna": 1.5, "bob": 0.5}, said, 0.25)
    assert [record.weight for record in weighed] == [3.0, 0.125, 0.25]
    assert [record.weight for record in weighed[1:]] == [0.125, 0.25]
