"""The account that filters give, the order of places, and stretches that follow a mended text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.cleaning import Cleaning, origin_key, with_texts
from rlhf_lightning.feedback.filter.encoding import repair
from rlhf_lightning.feedback.filter.pii import redact
from rlhf_lightning.feedback.filter.whitespace import strip_blanks
from rlhf_lightning.flow import Comment, Edit, Feedback, Message, SpanLabel, Spans, Thumbs


def edit(origin: str | None = None) -> Feedback:
    return Feedback(prompt="p", responses=("a", "b"), judgement=Edit(), origin=origin)


def test_lines_count_and_show_a_few_places() -> None:
    cleaning = Cleaning(notes=["a note"])
    for line in (1, 1, 2, 3, 4, 5, 6):
        cleaning.remove(edit(f"f:{line}"), "silly")
    cleaning.change(edit(), "mended")
    cleaning.flag(edit("g:1"), "odd")
    assert cleaning.lines() == ["removed 7: silly (f:1, f:2, f:3, f:4, f:5)", "changed 1: mended", "flagged 1: odd (g:1)", "a note"]


def test_places_are_in_order_and_never_shared() -> None:
    origins = [None, "", ":0", ":1", "f", "f:9", "f:10", "f:99999999999999999999", "f:09", "f:x", "g:1"]
    places = [origin_key(edit(origin)) for origin in origins]
    assert len(set(places)) == len(origins)
    assert origin_key(edit("f:9")) < origin_key(edit("f:10")) < origin_key(edit("g:1"))


def spans_of(text: str, *stretches: tuple[int, int]) -> Feedback:
    return Feedback(prompt="p", responses=(text,), judgement=Spans(spans=tuple(SpanLabel(start=a, end=b, value=0) for a, b in stretches)))


def marked(record: Feedback | None) -> list[str]:
    assert record is not None
    judgement = record.judgement
    stretches = [(span.start, span.end) for span in judgement.spans] if isinstance(judgement, Spans) else [(judgement.start, judgement.end)]
    return [record.responses[0][start:end] for start, end in stretches]


@pytest.mark.parametrize(
    ("mend", "text", "stretches", "expected"),
    [
        (repair, "so schÃ¶n und gut", [(3, 9), (14, 17), (0, 17)], ["schön", "gut", "so schön und gut"]),
        (repair, "schÃ¶n schÃ¶n", [(7, 13), (0, 6)], ["schön", "schön"]),
        (repair, "ab\x07cd", [(0, 2), (2, 3), (3, 5), (1, 4)], ["ab", "cd", "bc"]),
        (repair, "a\r\nb", [(3, 4), (0, 1), (1, 3)], ["b", "a", "\n"]),
        (strip_blanks, "  hello  \nworld ", [(2, 7), (10, 15), (0, 16), (8, 9)], ["hello", "world", "hello\nworld"]),
        (strip_blanks, "hello world  ", [(6, 11), (5, 6)], ["world", " "]),
        (
            redact,
            "write a@b.com today",
            [(0, 5), (6, 13), (14, 19), (8, 9), (0, 9)],
            ["write", "[EMAIL]", "today", "[EMAIL]", "write [EMAIL]"],
        ),
    ],
)
def test_stretches_follow_their_words(mend, text, stretches, expected) -> None:
    assert marked(with_texts(spans_of(text, *stretches), mend)) == expected
    first, *_ = stretches
    comment = Comment(text="x", start=first[0], end=first[1])
    assert marked(with_texts(Feedback(prompt="p", responses=(text,), judgement=comment), mend)) == expected[:1]


def test_a_comment_on_nothing_is_on_the_whole() -> None:
    record = Feedback(prompt="p", responses=("ab\x07",), judgement=Comment(text="odd", start=2, end=3))
    mended = with_texts(record, repair)
    assert mended is not None
    assert mended.judgement == Comment(text="odd")


def test_a_record_without_change_is_the_same_object() -> None:
    record = spans_of("fine", (0, 2))
    assert with_texts(record, repair) is record


def test_a_text_that_becomes_blank_loses_the_record_and_an_empty_one_does_not() -> None:
    record = Feedback(
        prompt=(Message(role="system", content=""), Message(role="user", content="\x07")), responses=("a",), judgement=Thumbs(up=True)
    )
    assert with_texts(record, repair) is None
    assert with_texts(record, repair, prompt=False) is record
    assert with_texts(record.model_copy(update={"judgement": Comment(text="\x07"), "prompt": ""}), repair) is None


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_what_a_stretch_held_is_what_it_holds_when_letters_are_taken_out(data: st.DataObject) -> None:
    """Letters of which no two beside each other are equal can be taken out in one way only."""
    text = "".join(data.draw(st.permutations("abcdefghij")))
    out = "".join(data.draw(st.sets(st.sampled_from("abcdefghij"), max_size=4)))
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))

    def mend(part: str) -> str:
        return re.sub(f"[{out}]", "", part) if out else part

    expected = mend(text[start:end])
    record = with_texts(spans_of(" ".join(text), (2 * start, 2 * end - 1)), mend)
    got = marked(record)
    assert [part.replace(" ", "") for part in got] == ([expected] if expected else [""] * len(got))


def test_a_text_marked_as_a_whole_stays_so_however_its_change_is_aligned() -> None:
    """'a\\ra\\n' becomes 'a\\na\\n', of which an alignment may find the end in the beginning."""
    assert marked(with_texts(spans_of("a\ra\n", (0, 4)), repair)) == ["a\na\n"]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab \n\r\x07\u0301Ã¶", min_size=1, max_size=20), st.data(), st.sampled_from([repair, strip_blanks]))
def test_mended_records_stay_valid(text: str, data: st.DataObject, mend) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    for record in (
        spans_of(text, (start, end), (0, len(text))),
        Feedback(prompt="", responses=(text,), judgement=Comment(text="c", start=start, end=end)),
    ):
        mended = with_texts(record, mend)
        assert mended is None or Feedback.model_validate_json(mended.model_dump_json()) == mended
        if mended is not None and isinstance(mended.judgement, Spans):
            assert (mended.judgement.spans[-1].start, mended.judgement.spans[-1].end) == (0, len(mended.responses[0]))
