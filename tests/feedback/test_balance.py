"""The balance of judgements, by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rlhf_lightning.feedback.balance import histogram, measure_balance
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs


def record(judgement: Any, count: int = 1, **fields: Any) -> Feedback:
    return Feedback(prompt="p", responses=tuple("abcd"[:count]), judgement=judgement, **fields)


def test_each_kind_is_counted_by_what_was_judged():
    balance = measure_balance([
        record(Rating(value=4, scale=(1, 5))), record(Rating(value=4, scale=(1, 5))), record(Rating(value=1, scale=(0, 1), aspect="tone")),
        record(Thumbs(up=True)), record(Thumbs(up=True)), record(Thumbs(up=False)),
        record(Ranking(ranks=(0, 1)), 2, positions=(1, 0)), record(Ranking(ranks=(1, 0)), 2, positions=(1, 0)),
        record(Ranking(ranks=(0, 0)), 2), record(Ranking(ranks=(0, 0, 1)), 3), record(Ranking(ranks=(0, 1)), 2),
    ])  # fmt: skip
    assert balance.ratings == {"rating, 1 to 5": Counter({4.0: 2}), "tone, 0 to 1": Counter({1.0: 1})}
    assert balance.thumbs == Counter(up=2, down=1)
    assert balance.orders == Counter({
        "one shown later is best": 1, "the first shown is best": 1, "all tie": 1, "a tie for the best": 1,
        "a best response, position unknown": 1,
    })  # fmt: skip
    assert [len(texts) for texts in balance.examples.values()] == [3, 3, 3, 1]


def test_many_distinct_ratings_are_binned_without_losing_one():
    values = Counter({value / 7: 1 + value % 3 for value in range(50)})
    bars = histogram(values)
    assert len(bars) == 10
    assert sum(count for _, count in bars) == values.total()
    assert histogram(Counter({2.0: 1, 1.0: 4})) == [("1", 4), ("2", 1)]
