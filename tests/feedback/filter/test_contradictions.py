"""Pairs judged both ways, counted and dropped where asked."""

from __future__ import annotations

from functools import partial

from rlhf_lightning.feedback.filter.contradictions import contradictions
from rlhf_lightning.flow import Edit, Feedback, Ranking


def ranked(*texts: str, prompt: str = "p", ranks: tuple[int | None, ...] | None = None) -> Feedback:
    return Feedback(prompt=prompt, responses=texts, judgement=Ranking(ranks=ranks or tuple(range(len(texts)))))


FEEDBACK = [
    ranked("a", "b", "c"),  # a>b a>c b>c
    ranked("c", "a"),  # against a>c
    ranked("c", "a"),
    ranked("b", "a", prompt="q"),  # another prompt
    ranked("b", "c", ranks=(0, 0)),  # a tie is no side
    Feedback(prompt="q", responses=("b", "a"), judgement=Edit()),  # a>b: against b>a of q
]


def test_the_rate_is_over_compared_pairs(cleaned) -> None:
    kept, cleaning = cleaned(contradictions, FEEDBACK)
    # Pairs: p has ab, ac, bc; q has ab. Both ways: ac of p, ab of q.
    assert cleaning.notes == ["contradictions: 2 of 4 compared pairs were judged both ways (50.00 %)"]
    assert kept == FEEDBACK


def test_drop_takes_every_side(cleaned) -> None:
    kept, cleaning = cleaned(partial(contradictions, action="drop"), FEEDBACK)
    assert kept == [FEEDBACK[4]]
    assert cleaning.removed == {"contradicted by other feedback": 5}


def test_what_was_left_unranked_is_no_side(cleaned) -> None:
    records = [ranked("a", "b", ranks=(0, None)), ranked("b", "a", ranks=(0, 1))]
    assert cleaned(contradictions, records)[1].notes == ["contradictions: 0 of 1 compared pairs were judged both ways (0.00 %)"]


def test_nothing_compared(cleaned) -> None:
    assert cleaned(contradictions, [])[1].notes == ["contradictions: 0 of 0 compared pairs were judged both ways (0.00 %)"]
