"""Which texts are explained."""

from __future__ import annotations

from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating, Thumbs
from rlhf_lightning.reward.explain.cases import distinct_cases, distinct_texts, sample_records, to_case


def record(judgement, *responses: str, prompt: str = "p") -> Feedback:
    return Feedback(prompt=prompt, responses=responses, judgement=judgement, origin="f.jsonl:1")


def test_a_comparison_gives_its_best_and_worst_and_anything_else_one_text():
    assert to_case(record(Ranking(ranks=(2, 0, None, 1)), "a", "b", "c", "d")).responses == ("b", "a")
    assert to_case(record(Edit(), "old", "new")).responses == ("new", "old")
    assert to_case(record(Edit(), "same", "same")).responses == ("same",)
    assert to_case(record(Ranking(ranks=(0, 0)), "a", "b")).responses == ("a",)
    assert to_case(record(Thumbs(up=True), "a")).responses == ("a",)
    case = to_case(record(Rating(value=1, scale=(0, 2)), "a"))
    assert (case.origin, case.kind, case.texts) == ("f.jsonl:1", "rating", [("p", "a")])


def test_cases_and_texts_are_distinct_and_in_order():
    records = [record(Edit(), "old", "new"), record(Ranking(ranks=(1, 0)), "old", "new"), record(Thumbs(up=True), "new"),
               record(Thumbs(up=False), "new", prompt="q")]  # fmt: skip
    assert [(case.kind, case.prompt) for case in distinct_cases(records, 9)] == [("edit", "p"), ("thumbs", "p"), ("thumbs", "q")]
    assert len(distinct_cases(records, 2)) == 2
    assert distinct_texts(records, 9) == [("p", "old"), ("p", "new"), ("q", "new")]
    assert distinct_texts(records, 1) == [("p", "old")]


def test_a_sample_is_the_seed_s_and_in_order():
    records = [record(Thumbs(up=True), f"r{i}") for i in range(30)]
    drawn = sample_records(records, 10, seed=0)
    assert drawn == sample_records(records, 10, seed=0) != sample_records(records, 10, seed=1)
    assert drawn == sorted(drawn, key=records.index)
    assert len(set(map(records.index, drawn))) == 10
    assert sample_records(records, 99, seed=0) == records
