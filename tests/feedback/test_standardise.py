"""Z-scores against the statistics module, comparisons by enumeration, spans by replaying the edit."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.feedback.standardise import comparisons, edit_spans, ranking_levels
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating


def rated(value: float, annotator: str | None = "a", scale: tuple[float, float] = (0, 10)) -> Feedback:
    return Feedback(prompt="p", responses=("r",), judgement=Rating(value=value, scale=scale), annotator=annotator)


def ranked(ranks: tuple[int, ...], texts: tuple[str, ...] | None = None) -> Feedback:
    return Feedback(prompt="p", responses=texts or tuple(f"r{i}" for i in range(len(ranks))), judgement=Ranking(ranks=ranks))


def edited(before: str, after: str) -> Feedback:
    return Feedback(prompt="p", responses=(before, after), judgement=Edit(), annotator="a", origin="f:1", weight=2.0)


def rating_z_scores(records: list[Feedback]) -> list[float]:
    return standardise(records).rows["z_score"].tolist()  # type: ignore[no-any-return]


def test_z_scores_are_each_annotators_own() -> None:
    strict, lenient = [1, 2, 4], [7, 8, 9, 9]
    records = [rated(v, "strict") for v in strict] + [rated(v, "lenient") for v in lenient]
    expected = [(v - statistics.fmean(own)) / statistics.pstdev(own) for own in (strict, lenient) for v in own]
    assert rating_z_scores(records) == pytest.approx(expected, rel=1e-12)


def test_too_few_equal_or_nameless_ratings_are_measured_by_all() -> None:
    records = [
        rated(1, "two"),
        rated(9, "two"),
        *[rated(4, "same")] * 3,
        rated(6, None),
        rated(2, "many"),
        rated(3, "many"),
        rated(8, "many"),
    ]
    values = [r.judgement.value for r in records if isinstance(r.judgement, Rating)]
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    assert rating_z_scores(records)[:6] == pytest.approx([(v - mean) / deviation for v in values[:6]])
    own = [2, 3, 8]
    assert rating_z_scores(records)[6:] == pytest.approx([(v - statistics.fmean(own)) / statistics.pstdev(own) for v in own])


def test_scales_are_brought_together_first() -> None:
    ten = rating_z_scores([rated(v) for v in (1, 5, 9)])
    hundred = rating_z_scores([rated(10 * v, scale=(0, 100)) for v in (1, 5, 9)])
    mixed = rating_z_scores([rated(1), rated(50, scale=(0, 100)), rated(9)])
    assert ten == pytest.approx(hundred)
    assert ten == pytest.approx(mixed)


def test_no_variance_at_all_is_zero_and_nothing_is_nothing() -> None:
    assert rating_z_scores([rated(0.1)] * 4) == [0.0] * 4
    assert rating_z_scores([]) == []


def test_a_scale_wider_than_a_float() -> None:
    wide = rating_z_scores([rated(v, scale=(-1.7e308, 1.7e308)) for v in (-1.7e308, 0.0, 1.7e308)])
    assert wide == pytest.approx(rating_z_scores([rated(v) for v in (0, 5, 10)]))


@given(st.lists(st.tuples(st.floats(-1.7e308, 1.7e308), st.sampled_from(["a", "b", None])), max_size=12))
def test_z_scores_are_always_finite(values: list[tuple[float, str | None]]) -> None:
    assert all(map(math.isfinite, rating_z_scores([rated(v, who, (-1.7e308, 1.7e308)) for v, who in values])))


def test_levels_from_the_best() -> None:
    assert ranking_levels(Ranking(ranks=(3, 1, 3, -2))) == [[3], [1], [0, 2]]


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=6))
def test_comparisons_are_the_strictly_ordered_pairs(ranks: list[int]) -> None:
    expected = {(i, j) for i, j in itertools.permutations(range(len(ranks)), 2) if ranks[i] < ranks[j]}
    found = comparisons(ranked(tuple(ranks)))
    assert set(found) == expected
    assert len(found) == len(expected)


def test_comparisons_of_other_kinds() -> None:
    assert comparisons(rated(3)) == []
    assert comparisons(edited("a", "b")) == [(1, 0)]
    assert comparisons(edited("a", "a")) == []
    assert comparisons(ranked((0, 1), ("a", "a"))) == []


def test_spans_of_words_and_of_letters_where_there_are_no_blanks() -> None:
    (span,) = edit_spans("the old cat sat", "the young cat sat")
    assert ("the old cat sat"[span.start : span.end], "the young cat sat"[span.edited_start : span.edited_end]) == ("old", "young")
    (span,) = edit_spans("我喜欢猫", "我喜欢狗")
    assert (span.start, span.end) == (3, 4)
    assert edit_spans("same", "same") == []


@given(st.text(alphabet="ab .\n猫กé", max_size=40), st.text(alphabet="ab .\n猫กé", max_size=40))
def test_replaying_the_spans_gives_the_edited_text(original: str, after: str) -> None:
    built, at = "", 0
    for span in edit_spans(original, after):
        built += original[at : span.start] + after[span.edited_start : span.edited_end]
        at = span.end
    assert built + original[at:] == after
