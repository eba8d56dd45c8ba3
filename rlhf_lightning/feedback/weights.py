"""Weights for the reward model: written comments as weak ratings, judgements weighted by annotator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

from rlhf_lightning.flow import Comment, Feedback, Rating

SENTIMENT_ASPECT = "sentiment of the comment"


class WeightedFeedback(Sequence[Feedback]):
    """A view of feedback with weights applied and comments as ratings, computed on access.

    Args:
        annotator_weights: factor of an annotator's judgements; 1 if absent.
        sentiment: maps a comment's text to -1 (bad) .. 1 (good): the comment becomes a rating on that scale.
        comment_weight: factor of such a rating.
    """

    def __init__(
        self, feedback: Sequence[Feedback], annotator_weights: Mapping[str, float], sentiment: Callable[[str], float], comment_weight: float
    ) -> None:
        self.feedback, self.annotator_weights = feedback, annotator_weights
        self.sentiment, self.comment_weight = sentiment, comment_weight

    def __len__(self) -> int:
        return len(self.feedback)

    @overload
    def __getitem__(self, index: int) -> Feedback: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feedback]: ...
    def __getitem__(self, index: int | slice) -> Feedback | list[Feedback]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.feedback[index]
        weight = record.weight * self.annotator_weights.get(record.annotator or "", 1.0)
        if isinstance(record.judgement, Comment):
            weight *= self.comment_weight
            record = record.model_copy(update={"judgement": sentiment_rating(record.judgement, self.sentiment)})
        return record if weight == record.weight else record.model_copy(update={"weight": weight})


def sentiment_rating(comment: Comment, sentiment: Callable[[str], float]) -> Rating:
    """Convert a comment's sentiment to a rating from -1 to 1, with an aspect of its own."""
    return Rating(value=min(max(sentiment(comment.text), -1.0), 1.0), scale=(-1.0, 1.0), aspect=SENTIMENT_ASPECT)
