"""Written comments on responses and on stretches of them."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.comment import CommentFormat
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.flow import Comment, Feedback


def read(comment: Any, rest: dict[str, Any] | None = None, **settings: Any) -> list[Feedback] | None:
    row = {"prompt": "p", "response": "one two two", "comment": comment}
    return CommentFormat(**settings)(Row(row | (rest or {}), "f:1"))


def comments(comment: Any, rest: dict[str, Any] | None = None, **settings: Any) -> list[Any]:
    return [record.judgement for record in read(comment, rest, **settings) or []]


def test_on_the_whole_response() -> None:
    expected = Feedback(prompt="p", responses=("one two two",), judgement=Comment(text="Fine."), annotator="A", models=("m",), origin="f:1")
    assert read("Fine.", {"annotator": "A", "model": "m"}) == [expected]
    assert comments("Fine.", {"span": None, "start": None, "end": None}) == [Comment(text="Fine.")]


def test_on_a_stretch() -> None:
    assert comments("Odd.", {"start": 4, "end": 7}) == [Comment(text="Odd.", start=4, end=7)]
    assert comments("Odd.", {"span": "one"}) == [Comment(text="Odd.", start=0, end=3)]


def test_lists_of_texts_and_objects() -> None:
    given = ["Fine.", {"text": "Odd.", "span": "one"}, {"text": "Long."}]
    assert comments(given) == [Comment(text="Fine."), Comment(text="Odd.", start=0, end=3), Comment(text="Long.")]
    assert comments([{"words": "x", "on": "one"}], text="words", span="on") == [Comment(text="x", start=0, end=3)]
    assert comments(["x"], {"span": "one"}) == [Comment(text="x")]
    assert read([]) == []


def test_unclear_places() -> None:
    for span, first in (("two", (4, 7)), ("none", (None, None)), ("", (None, None))):
        start, end = first
        assert comments("x", {"span": span}, unclear="first") == [Comment(text="x", start=start, end=end)]
        assert comments("x", {"span": span}, unclear="drop") == [Comment(text="x")]
        with pytest.raises(DataError, match=r"span is text .*feedback_format.comment.unclear=first"):
            read("x", {"span": span})


def test_stretches_marked_in_silence() -> None:
    assert comments([{"text": " ", "span": "one"}, "x", ""], empty="skip") == [Comment(text="x")]
    assert comments("", empty="skip") == []
    with pytest.raises(DataError, match=r"comment\[1\].text has no words; feedback_format.comment.empty=skip"):
        read(["x", {"text": ""}])


def test_paths() -> None:
    data = {"prompt": "p", "r": {"text": "one", "reviews": {"by": "7", "comments": [{"comment": "x", "span": "n"}]}}}
    names = {"response": "r.text", "comment": "r.reviews.comments", "text": "comment", "annotator": "r.reviews.by"}
    (record,) = CommentFormat(**names)(Row(data, "f:1")) or []
    assert (record.judgement, record.annotator) == (Comment(text="x", start=1, end=2), "7")


def test_not_mine() -> None:
    assert read(None) is None
    assert CommentFormat()(Row({"prompt": "p", "response": "r"}, "f:1")) is None


@pytest.mark.parametrize(
    ("comment", "rest", "words"),
    [
        (3, {}, "comment must be text, not a number"),
        ({"text": "x"}, {}, "comment must be text, not an object"),
        ([3], {}, r"comment\[0\] must be an object, not a number"),
        ([{"txt": "x"}], {}, r"'comment\[0\].text' is missing"),
        ([{"text": None}], {}, r"comment\[0\].text is null"),
        ("x", {"start": 1}, "end must be a whole number from 0, not null"),
        ("x", {"start": 1, "end": 12}, "not a span of the response of 11 characters"),
        ("x", {"response": None}, "response is null"),
    ],
)
def test_refused(comment: Any, rest: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(comment, rest)
