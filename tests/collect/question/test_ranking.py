"""Rankings with ties."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.question.ranking import RankingQuestion
from rlhf_lightning.collect.questions import ItemView

SHOWN = ItemView("p", ["one", "two", "three"], ["m1", None, "m3"])


def test_ranks_are_those_of_the_display_positions_without_gaps():
    question = RankingQuestion()
    [record] = question.feedback(question.parse([3, 1, 1], SHOWN, 0), SHOWN, 0)
    assert record.judgement.ranks == (2, 1, 1)
    assert (record.responses, record.positions, record.models) == (("one", "two", "three"), (0, 1, 2), ("m1", None, "m3"))


@pytest.mark.parametrize("value", [[1, 2], [0, 1, 2], [1, 2, 4], [1, 2, "3"], [True, 1, 2], "123", None])
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match=r"rank|whole number"):
        RankingQuestion().parse(value, SHOWN, 0)


def test_without_ties_two_may_not_share_a_rank():
    with pytest.raises(ValueError, match="share"):
        RankingQuestion(ties=False).parse([1, 1, 2], SHOWN, 0)


def test_gold_ranks_follow_the_display_order():
    assert RankingQuestion().in_display_order([1, 2, 3], [2, 0, 1]) == [3, 1, 2]
