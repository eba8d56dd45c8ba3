"""Biases counted by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from rlhf_lightning.feedback.quality.bias import Contradictions, bias, contradictions
from rlhf_lightning.feedback.quality.votes import tables_of
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs
from rlhf_lightning.statistics.intervals import proportion_interval
from rlhf_lightning.statistics.ranks import rank_correlation


def ranked(
    ranks: tuple[int | None, ...], texts: tuple[str, ...], positions: tuple[int, ...] | None = None, annotator: str | None = None
) -> Feedback:
    return Feedback(prompt="q", responses=texts, judgement=Ranking(ranks=ranks), positions=positions, annotator=annotator)


def test_the_first_shown_and_the_longer_are_counted_once_for_each_ranking() -> None:
    feedback = [
        ranked((0, 1), ("long text", "x"), (0, 1)),  # first wins, longer wins
        ranked((0, 1), ("x", "long text"), (1, 0)),  # last wins, shorter wins
        ranked((0, 1), ("ab", "cd"), (0, 1)),  # first wins, equally long
        ranked((0, 0), ("long text", "x"), (0, 1)),  # a tie
        ranked((0, 1), ("long text", "x")),  # order not recorded, longer wins
        ranked((2, 0, 1), ("four", "x", "two"), (2, 1, 0)),  # shown last (four) loses to shown first (two); the longest to the shortest
        ranked((None, 0, 1), ("longest", "x", "two"), (0, 1, 2)),  # among the ranked: the second was shown first and wins; shorter wins
        ranked((0, 1, 2), ("longest", "xx", "yy")),  # no one shortest
    ]
    found = bias(feedback)
    assert found.first_wins is not None
    assert (found.first_wins.n, found.first_wins.ties) == (5, 1)
    assert found.first_wins.share == 4 / 5
    assert found.longer_wins is not None
    assert (found.longer_wins.n, found.longer_wins.ties, found.longer_wins.share) == (5, 1, 2 / 5)
    expected = proportion_interval(2, 5)
    assert (found.longer_wins.low, found.longer_wins.high) == (expected.low, expected.high)


def test_ratings_with_length_are_spearman_s_correlation_by_aspect() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(1, 30, 200)
    value = np.clip(np.round(length / 8 + rng.normal(size=200)), 0, 5)
    feedback = [
        Feedback(prompt="q", responses=("x" * n,), judgement=Rating(value=v, scale=(0.0, 5.0), aspect="clear"), source="one")
        for n, v in zip(length.tolist(), value.tolist(), strict=True)
    ]
    feedback += [Feedback(prompt="q", responses=("x" * n,), judgement=Rating(value=3.0, scale=(0.0, 5.0))) for n in range(1, 9)]
    (found,) = bias(feedback).length_ratings
    assert (found.data_set, found.aspect, found.n) == ("one", "clear", 200)
    assert found.correlation == pytest.approx(spearmanr(length, value).statistic)
    assert found.low < found.correlation < found.high


def test_the_interval_of_the_correlation_covers_it_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=80)
        # Pearson's 0.5 is Spearman's 6 / pi * asin(0.25) = 0.4826 for normal variables.
        y = 0.5 * x + np.sqrt(0.75) * rng.normal(size=80)
        lengths = np.argsort(np.argsort(x)) + 1
        values = (np.argsort(np.argsort(y))).astype(float).tolist()
        judged = [
            Feedback(prompt="q", responses=("x" * int(n),), judgement=Rating(value=v, scale=(0.0, 80.0)))
            for n, v in zip(lengths, values, strict=True)
        ]
        (found,) = bias(judged).length_ratings
        inside += found.low <= 0.4826 <= found.high
    assert 88 <= inside <= 100


def test_rank_correlation_with_ties_is_scipy_s() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(4, size=(2, 12)).astype(float)
        if len(set(x)) > 1 and len(set(y)) > 1:
            assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert rank_correlation(np.ones(3), np.arange(3.0)) is None


def test_haste_is_reading_faster_than_anyone() -> None:
    def thumbs(seconds: float | None) -> Feedback:
        return Feedback(prompt="q" * 100, responses=("x" * 400,), judgement=Thumbs(up=True), seconds=seconds)

    found = bias([thumbs(1.0), thumbs(9.0), thumbs(10.0), thumbs(60.0), thumbs(None)]).time
    assert found is not None
    assert (found.median_seconds, found.too_fast, found.n) == (9.5, 0.5, 4)
    slower = bias([thumbs(9.0)], characters_per_second=60).time
    assert slower is not None
    assert slower.too_fast == 0


def test_contradictions_within_and_between_annotators() -> None:
    up, down = (0, 1), (1, 0)

    def judged(texts: str, *said: tuple[str | None, tuple[int, int]]) -> list[Feedback]:
        return [ranked(ranks, (texts + "1", texts + "2"), annotator=name) for name, ranks in said]

    feedback = [
        *judged("a", ("ann", up), ("ann", down), ("bob", up)),  # ann contradicts herself; bob is alone then
        *judged("b", ("ann", up), ("ann", up), ("bob", down)),  # between
        *judged("c", ("ann", up), ("bob", up), ("cyd", (0, 0))),  # agreed; a tie says nothing
        *judged("d", (None, up), (None, down)),  # nobody knows whether they are two people
        *judged("e", ("ann", (0, 0))),
    ]
    tables = tables_of(feedback)
    assert contradictions(tables.pairs, len(tables.annotators)) == Contradictions(pairs=4, repeated=2, within=1, shared=2, between=1)


def test_a_ranking_contradicts_a_pair() -> None:
    feedback = [ranked((0, 1, 2), ("x", "y", "z"), annotator="ann"), ranked((1, 0), ("x", "z"), annotator="bob")]
    assert contradictions(tables_of(feedback).pairs, 2) == Contradictions(pairs=3, repeated=0, within=0, shared=1, between=1)


def test_nothing_to_count_is_none() -> None:
    found = bias([Feedback(prompt="q", responses=("x",), judgement=Thumbs(up=True))])
    assert (found.first_wins, found.longer_wins, found.length_ratings, found.time) == (None, None, [], None)
    assert contradictions(tables_of([]).pairs, 0) == Contradictions(0, 0, 0, 0, 0)
