"""Every order that feedback states, by brute force."""

from __future__ import annotations

import pytest

from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating
from rlhf_lightning.reward.evaluation import comparisons as module
from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons, weighted_comparisons


def ranked(prompt: str, texts: list[str], ranks: list[int], **fields) -> Feedback:
    return Feedback(prompt=prompt, responses=tuple(texts), judgement=Ranking(ranks=tuple(ranks)), **fields)


def edited(prompt: str, before: str, after: str) -> Feedback:
    return Feedback(prompt=prompt, responses=(before, after), judgement=Edit())


def rated(prompt: str, text: str, value: float, **fields) -> Feedback:
    return Feedback(prompt=prompt, responses=(text,), judgement=Rating(value=value, scale=(0, 10)), **fields)


HELD_OUT = [
    ranked("p", ["ab", "c"], [1, 0]),
    ranked("p", ["c", "ab"], [0, 0]),
    ranked("q", ["ab", "c", "d", "ab"], [2, 1, 1, 0]),
    edited("q", "c", "efg"),
    edited("q", "c", "c"),
    *[rated(*given, annotator=who) for who in ("ann", "bob") for given in (("p", "ab", 3), ("p", "c", 9), ("p", "d", 3), ("q", "ab", 1))],
    rated("p", "e", 10, annotator="bob"),
    rated("p", "f", 2),
    rated("q", "ab", 8, annotator="ann"),  # who rates one text twice puts nothing in an order
]


def stated_orders() -> list[tuple[str, str, str, str]]:
    """Every order that HELD_OUT states, written out."""
    orders = [("pair", "p", "c", "ab")]
    orders += [("ranking", "q", better, worse) for better, worse in (("c", "ab"), ("d", "ab"), ("ab", "c"), ("ab", "d"))]
    orders += [("edit", "q", "efg", "c")]
    orders += [("rating", "p", "c", other) for _ in ("ann", "bob") for other in ("ab", "d")]
    return orders + [("rating", "p", "e", other) for other in ("ab", "c", "d")]


def test_comparisons_are_all_the_orders_that_were_stated():
    found = judged_comparisons(standardise(HELD_OUT))
    assert sorted(one[:4] for one in found) == sorted(stated_orders())
    assert {one.source for one in found} == {"unnamed"}


def test_ratings_of_different_data_sets_are_not_compared():
    records = [rated("p", "a", 1, source="x"), rated("p", "b", 2, source="x"), rated("p", "c", 3, source="y")]
    assert judged_comparisons(standardise(records)) == [("rating", "p", "b", "a", "x")]


def test_of_very_many_ratings_a_fixed_draw_is_compared(monkeypatch):
    monkeypatch.setattr(module, "MAX_PAIRS", 40)
    judged = standardise([rated("p", f"text {i}", i % 10, annotator="ann") for i in range(30)])
    found = judged_comparisons(judged)
    assert found == judged_comparisons(judged)
    assert 20 < len(found) <= 40, "some of the pairs drawn are rated alike"
    value = {f"text {i}": i % 10 for i in range(30)}
    assert all(value[one.better] > value[one.worse] for one in found)
    assert len({text for one in found for text in (one.better, one.worse)}) > 20


def test_what_a_judgement_counts_is_shared_among_its_comparisons(monkeypatch):
    records = [ranked("p", list("abcd"), [0, 1, 2, 3], weight=0.5), ranked("q", list("abc"), [0, 1, 1]), edited("r", "a", "b")]
    of_kind = {"ranking": 0.0, "edit": 0.0}
    for one, weight in weighted_comparisons(standardise(records)):
        of_kind[one.kind] += weight
    assert of_kind == pytest.approx({"ranking": 0.5 * 3 + 2 * 2 / 3, "edit": 1.0})
    many = standardise([rated("p", f"text {i}", i / 3, annotator="ann", weight=2.0) for i in range(30)])
    for most in (40, 2_000):  # drawn pairs stand for all
        monkeypatch.setattr(module, "MAX_PAIRS", most)
        assert sum(weight for _, weight in weighted_comparisons(many)) == pytest.approx(2.0 * 29)
