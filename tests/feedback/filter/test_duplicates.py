"""Records that say the same thing twice."""

from __future__ import annotations

import itertools

from rlhf_lightning.feedback.filter.duplicates import duplicates
from rlhf_lightning.flow import Feedback, Ranking


def pair(origin: str | None = None, annotator: str | None = None, ranks: tuple[int, int] = (0, 1)) -> Feedback:
    return Feedback(prompt="p", responses=("a", "b"), judgement=Ranking(ranks=ranks), origin=origin, annotator=annotator)


def test_the_first_by_line_number_stays_whatever_the_order() -> None:
    for order in itertools.permutations([pair("f:10"), pair("f:9"), pair("g:1")]):
        cleaning = duplicates(list(order))
        assert cleaning.kept == [pair("f:9")]
        assert cleaning.removed == {"exact duplicate": 2}


def test_two_people_or_another_judgement_are_no_duplicates() -> None:
    records = [pair("f:1", "anna"), pair("f:1", "ben"), pair("f:1"), pair("f:1", ranks=(1, 0))]
    assert duplicates(records).kept == records
