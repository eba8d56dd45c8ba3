"""Feedback in a file: the same records, by index, slice and in a row; whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_lightning.feedback import store
from rlhf_lightning.feedback.store import SENTIMENT_ASPECT, FeedbackFile, WeightedFeedback
from rlhf_lightning.flow import Comment, Feedback, Message, Rating, Thumbs


def records(count: int) -> list[Feedback]:
    # A carriage return and a line separator in a text must not end a line of the file.
    texts = [f"text {i} \r\n\u2028 \x85 schön 🙂" for i in range(count)]
    return [Feedback(prompt=(Message(role="user", content=t),), responses=(t,), judgement=Thumbs(up=True)) for t in texts]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_it_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(store, "READ_CHUNK", 3)
    given = records(count)
    kept = FeedbackFile.write(iter(given), tmp_path / "f.jsonl")
    assert (len(kept), list(kept), list(kept)) == (count, given, given)
    assert [kept[i] for i in range(-count, count)] == given + given
    assert kept[2:5] == given[2:5]
    with pytest.raises(IndexError):
        kept[count]


def test_the_file_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    def breaking() -> Iterator[Feedback]:
        yield from records(3)
        raise RuntimeError("the rows end in an error")

    with pytest.raises(RuntimeError):
        FeedbackFile.write(breaking(), tmp_path / "f.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_kept_has_no_name(tmp_path: Path) -> None:
    kept = FeedbackFile.write(records(3), tmp_path / "f.jsonl", keep=False)
    assert list(tmp_path.iterdir()) == []
    assert list(kept) == records(3)


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
