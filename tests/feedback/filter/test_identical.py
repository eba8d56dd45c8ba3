"""Texts judged against themselves."""

from __future__ import annotations

import pytest

from rlhf_lightning.feedback.filter.identical import identical
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating


def ranked(texts: tuple[str, ...], ranks: tuple[int | None, ...], margin: float | None = None) -> Feedback:
    return Feedback(prompt="p", responses=texts, judgement=Ranking(ranks=ranks, margin=margin))


@pytest.mark.parametrize("texts", [("a", "a"), ("a", " a\n"), ("é", "e\u0301")])
@pytest.mark.parametrize("ranks", [(0, 1), (0, 0)])
def test_a_pair_of_one_text_goes(texts: tuple[str, ...], ranks: tuple[int, ...], cleaned) -> None:
    kept, cleaning = cleaned(identical, [ranked(texts, ranks)])
    assert (kept, cleaning.removed) == ([], {"identical responses": 1})


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (ranked(("a", "b", "a"), (0, 1, 0), 2.0), ranked(("a", "b"), (0, 1), 2.0)),
        (ranked(("a", "b", "a", "c"), (0, 1, 2, 3), 2.0), ranked(("b", "c"), (1, 3), None)),
        (ranked(("a", "b", "a"), (0, 1, 2)), None),
        (ranked(("a", "b", "a"), (0, 1, None), 2.0), ranked(("a", "b"), (0, 1), 2.0)),
        (ranked(("a", "b", " a"), (None, 1, 0), 2.0), ranked(("b", " a"), (1, 0), 2.0)),
        (ranked(("a", "b", "a", "c"), (None, 1, None, 0), 2.0), ranked(("a", "b", "c"), (None, 1, 0), 2.0)),
        (ranked(("a", "b", "c"), (0, 1, 1), 2.0), ranked(("a", "b", "c"), (0, 1, 1), 2.0)),
    ],
)
def test_within_a_ranking(record: Feedback, expected: Feedback | None, cleaned) -> None:
    assert cleaned(identical, [record])[0] == ([] if expected is None else [expected])


def test_an_edit_that_changes_nothing_is_an_approval(cleaned) -> None:
    kept, cleaning = cleaned(identical, [Feedback(prompt="p", responses=("é", "e\u0301 "), judgement=Edit())])
    assert [r.responses for r in kept] == [("é", "é")]
    assert cleaning.changed == {"edit equal to its original, kept as approval": 1}


def test_ratings_pass(cleaned) -> None:
    record = Feedback(prompt="p", responses=("a",), judgement=Rating(value=1, scale=(0, 1)))
    assert cleaned(identical, [record])[0] == [record]


def test_who_wrote_it_and_where_it_stood_follow_the_texts(cleaned) -> None:
    record = ranked(("a", "b", "a", "c"), (0, 1, 2, None)).model_copy(update={"models": ("m", "n", "o", None), "positions": (3, 2, 1, 0)})
    kept, _ = cleaned(identical, [record.model_copy(update={"judgement": Ranking(ranks=(0, 1, 2, None), all_bad=True)})])
    assert (kept[0].responses, kept[0].models, kept[0].positions) == (("b", "c"), ("n", None), (2, 0))
    assert kept[0].judgement == Ranking(ranks=(1, None), all_bad=True)
