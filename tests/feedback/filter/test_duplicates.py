"""Records that say the same thing twice."""

from __future__ import annotations

import itertools

from rlhf_lightning.feedback.filter.duplicates import duplicates
from rlhf_lightning.flow import Comment, Feedback, Message, Ranking, Rating, SpanLabel, Spans, Thumbs


def pair(origin: str | None = None, annotator: str | None = None, ranks: tuple[int, int] = (0, 1)) -> Feedback:
    return Feedback(prompt="p", responses=("a", "b"), judgement=Ranking(ranks=ranks), origin=origin, annotator=annotator)


def test_the_first_by_line_number_stays_whatever_the_order(cleaned) -> None:
    for order in itertools.permutations([pair("f:10"), pair("f:9"), pair("g:1")]):
        kept, cleaning = cleaned(duplicates, order)
        assert kept == [pair("f:9")]
        assert cleaning.removed == {"exact duplicate": 2}


def test_of_one_place_one_stays(cleaned) -> None:
    assert cleaned(duplicates, [pair("f:1"), pair("f:1"), pair(), pair()])[0] == [pair()]


def test_two_people_or_another_judgement_are_no_duplicates(cleaned) -> None:
    records = [pair("f:1", "anna"), pair("f:1", "ben"), pair("f:1"), pair("f:1", ranks=(1, 0))]
    assert cleaned(duplicates, records)[0] == records


def test_judgements_of_other_kinds_or_values_are_no_duplicates(cleaned) -> None:
    """Python's own hash takes -1 and -2 for the same; defaults left out of what is hashed must not make two records one."""
    judgements = [
        Rating(value=-1, scale=(-2, 2)), Rating(value=-2, scale=(-2, 2)), Rating(value=-1, scale=(-2, 2), turn=0),
        Rating(value=-1, scale=(-2, 2), aspect="a"), Thumbs(up=True), Thumbs(up=False), Spans(spans=()), Comment(text=""),
        Comment(text="", start=0, end=1), Spans(spans=(SpanLabel(start=0, end=1, value=0),)),
    ]  # fmt: skip
    chat = (Message(role="user", content="p"),)
    records = [Feedback(prompt=p, responses=("ab",), judgement=j) for p in ("p", chat) for j in judgements]
    records += [record.model_copy(update={"weight": 2.0}) for record in records]
    assert cleaned(duplicates, records * 2)[0] == records
