"""A, B, a tie, both bad, and how much better."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.questions import ItemView

SHOWN = ItemView("p", ["one", "two"])


@pytest.mark.parametrize(
    ("choice", "ranks", "all_bad"), [("a", (1, 2), False), ("b", (2, 1), False), ("tie", (1, 1), False), ("both_bad", (1, 1), True)]
)
def test_each_choice_is_a_ranking(choice, ranks, all_bad):
    question = PairwiseQuestion()
    [record] = question.feedback(question.parse({"choice": choice}, SHOWN, 0), SHOWN, 0)
    assert (record.judgement.ranks, record.judgement.all_bad, record.judgement.margin) == (ranks, all_bad, None)


def test_a_strength_is_the_margin_and_a_tie_has_none():
    question = PairwiseQuestion(strengths=3)
    [record] = question.feedback(question.parse({"choice": "b", "strength": 2}, SHOWN, 0), SHOWN, 0)
    assert (record.judgement.ranks, record.judgement.margin) == ((2, 1), 2.0)
    assert question.parse({"choice": "tie"}, SHOWN, 0) == {"choice": "tie"}


@pytest.mark.parametrize(
    ("settings", "value"),
    [({}, "a"), ({}, {"choice": "c"}), ({}, {"choice": "a", "strength": 1}), ({"strengths": 2}, {"choice": "a"}),
     ({"strengths": 2}, {"choice": "a", "strength": 3}), ({"strengths": 2}, {"choice": "tie", "strength": 1}),
     ({"ties": False}, {"choice": "tie"}),
     ({"both_bad": False}, {"choice": "both_bad"}), ({}, {"choice": "a", "model": "x"})],
)  # fmt: skip
def test_anything_else_is_refused(settings, value):
    with pytest.raises(ValueError, match=r"expected|must be|no strength"):
        PairwiseQuestion(**settings).parse(value, SHOWN, 0)


def test_a_gold_choice_follows_the_display_order():
    assert PairwiseQuestion().in_display_order({"choice": "a"}, [1, 0]) == {"choice": "b"}
    assert PairwiseQuestion().in_display_order({"choice": "tie"}, [1, 0]) == {"choice": "tie"}
