"""Judgements in words."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.feedback.describe import describe_feedback, shorten
from rlhf_lightning.flow import Comment, Edit, Feedback, Ranking, Rating, SpanLabel, Spans, Thumbs


@pytest.mark.parametrize(
    ("responses", "judgement", "words"),
    [
        (("a", "b", "c"), Ranking(ranks=(1, 0, 2)), "ben: answer 2 best, then 1, then 3"),
        (("a", "b", "c"), Ranking(ranks=(0, 0, None)), "ben: answers 1 and 2 tie"),
        (("a", "b"), Ranking(ranks=(0, 0), all_bad=True), "ben: both bad"),
        (("a",), Rating(value=4, scale=(1, 5)), "ben: 4 on a scale of 1 to 5"),
        (("a",), Rating(value=0.5, scale=(0, 1), aspect="tone"), "ben: 0.5 on a scale of 0 to 1 for tone"),
        (("a foo here", "a bar here"), Edit(), "ben: 'foo' changed to 'bar'"),
        (("a", "a"), Edit(), "ben: approved as it is"),
        (("a",), Thumbs(up=False), "ben: thumbs down"),
        (("good word",), Spans(spans=(SpanLabel(start=0, end=4, value=-1, label="major"),)), "ben: marked 'good' major (-1)"),
        (("good word",), Comment(text="why so", start=5, end=9), "ben: wrote 'why so' on 'word'"),
    ],
)
def test_a_judgement_reads_as_people_say_it(responses: tuple[str, ...], judgement: Any, words: str) -> None:
    assert describe_feedback(Feedback(prompt="p", responses=responses, judgement=judgement, annotator="ben")).startswith(words)


def test_long_texts_keep_their_ends_and_control_characters_are_replaced() -> None:
    text = shorten("start " + "middle " * 50 + "\x1b[31m end")
    assert len(text) <= 64
    assert text.startswith("'start")
    assert text.endswith("end'")
    assert "\x1b" not in text
