"""Preferences that go round, against brute force."""

from __future__ import annotations

import itertools
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.filter.cycles import cycles
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Edit, Feedback, Ranking, Thumbs


def order(*texts: str, by: str | None = None, prompt: str = "p") -> Feedback:
    return Feedback(prompt=prompt, responses=texts, judgement=Ranking(ranks=tuple(range(len(texts)))), annotator=by)


REASON = "part of a cycle of preferences"


def test_a_circle_of_three_and_what_hangs_on_it(cleaned) -> None:
    circle = [order("a", "b"), order("b", "c"), order("c", "a")]
    rest = [order("c", "d"), order("d", "e"), order("z", "a"), order("a", "c", prompt="q")]
    kept, cleaning = cleaned(cycles, circle + rest)
    assert kept == circle + rest
    assert (cleaning.notes, cleaning.flagged) == (["cycles: 1 found, 3 texts in them"], {REASON: 3})
    kept, cleaning = cleaned(partial(cycles, action="drop"), rest + circle)
    assert (kept, cleaning.removed) == (rest, {REASON: 3})


def test_two_people_may_disagree_unless_all_are_one(cleaned) -> None:
    records = [order("a", "b", by="anna"), order("b", "c", by="ben"), order("c", "a", by="anna")]
    assert cleaned(cycles, records)[1].notes == ["cycles: 0 found, 0 texts in them"]
    assert cleaned(partial(cycles, within="all", action="drop"), records)[0] == []


def test_an_edit_is_an_arrow_and_a_thumb_is_none(cleaned) -> None:
    edit = Feedback(prompt="p", responses=("a", "b"), judgement=Edit())  # b over a
    thumb = Feedback(prompt="p", responses=("a",), judgement=Thumbs(up=True))
    assert cleaned(partial(cycles, action="drop"), [edit, thumb, order("a", "b")])[0] == [thumb]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=3, unique=True), st.sampled_from(["x", "y"])), max_size=14)
)
def test_against_every_path(asked: list[tuple[list[str], str]]) -> None:
    records = [order(*texts, by=who) for texts, who in asked]
    for within in ("annotator", "all"):
        reach = set()
        for record in records:
            who = record.annotator if within == "annotator" else None
            reach |= {(who, record.responses[a], record.responses[b]) for a, b in comparisons(record)}
        for middle, start, end in itertools.product("abcdef", repeat=3):  # Warshall
            reach |= {(who, start, end) for who in (None, "x", "y") if {(who, start, middle), (who, middle, end)} <= reach}
        expected = []
        for record in records:
            who = record.annotator if within == "annotator" else None
            pairs = [(record.responses[a], record.responses[b]) for a, b in comparisons(record)]
            expected.append(any((who, b, a) in reach for a, b in pairs))
        kept = list(cycles(records, Cleaning(), within=within, action="drop"))
        assert kept == [record for record, inside in zip(records, expected, strict=True) if not inside]


def test_a_long_chain_and_a_large_circle(cleaned) -> None:
    chain = [order(f"t{i}", f"t{i + 1}") for i in range(3000)]
    assert cleaned(cycles, chain)[1].flagged == {}
    _, cleaning = cleaned(cycles, [*chain, order("t3000", "t0")])
    assert (cleaning.notes, cleaning.flagged) == (["cycles: 1 found, 3001 texts in them"], {REASON: 3001})
