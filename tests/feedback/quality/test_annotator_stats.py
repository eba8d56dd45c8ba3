"""Habits counted by hand."""

from __future__ import annotations

from rlhf_lightning.feedback.quality.annotator_stats import AnnotatorStats, annotator_stats
from rlhf_lightning.feedback.quality.votes import tables_of
from rlhf_lightning.flow import Feedback, Judgement, Ranking, Rating, Thumbs


def said(name: str, judgement: Judgement, *texts: str, positions: tuple[int, ...] | None = None) -> Feedback:
    return Feedback(prompt="q", responses=texts, judgement=judgement, annotator=name, positions=positions)


def rating(value: float, aspect: str | None = None) -> Rating:
    return Rating(value=value, scale=(0.0, 10.0), aspect=aspect)


def test_habits_by_hand() -> None:
    win = Ranking(ranks=(0, 1))
    feedback = [
        said("ann", win, "a", "b", positions=(0, 1)),
        said("ann", win, "c", "d", positions=(1, 0)),
        said("ann", win, "f", "e", positions=(0, 1)),
        said("ann", win, "f", "g"),
        said("ann", Ranking(ranks=(0, 0)), "f", "h", positions=(0, 1)),
        said("ann", Ranking(ranks=(1, 0)), "a", "b"),
        # Three of four of one aspect, one of two of another: (3 + 1) / 6.
        *[said("ann", rating(value), f"r{i}") for i, value in enumerate((7, 7, 7, 1))],
        *[said("ann", rating(value, "x"), f"r{i}") for i, value in enumerate((1, 2))],
        said("bob", Thumbs(up=True), "t"),
        said("bob", Thumbs(up=True), "t"),
        said("bob", Thumbs(up=False), "u"),
    ]
    ann, bob = annotator_stats(tables_of(feedback))
    assert ann == AnnotatorStats(first=2 / 3, same_rating=4 / 6, up=None, contradicts_itself=1.0)
    assert bob == AnnotatorStats(first=None, same_rating=None, up=2 / 3, contradicts_itself=0.0)
    assert annotator_stats(tables_of([])) == []
