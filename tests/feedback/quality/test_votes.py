"""Feedback as columns."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from rlhf_lightning.feedback.quality.votes import data_set, sample_by_prompt, tables_of
from rlhf_lightning.flow import Comment, Edit, Feedback, Judgement, Message, Ranking, Rating, Thumbs


def said(judgement: Judgement, *responses: str, annotator: str | None = "ann", prompt: str = "q", **more: object) -> Feedback:
    return Feedback(prompt=prompt, responses=responses, judgement=judgement, annotator=annotator, **more)  # type: ignore[arg-type]


def test_a_pair_is_the_same_in_either_order() -> None:
    pairs = tables_of(
        [said(Ranking(ranks=(0, 1)), "x", "y", positions=(0, 1)), said(Ranking(ranks=(1, 0)), "y", "x", annotator="bob", positions=(0, 1))]
    ).pairs
    assert len(set(pairs.unit)) == 1
    assert pairs.value[0] == pairs.value[1]
    assert sorted(pairs.display_order) == [-1, 1]
    assert pairs.annotator.tolist() == [0, 1]
    assert (pairs.first_at + pairs.second_at).tolist() == [1, 1]
    assert pairs.first_at[0] != pairs.first_at[1]


def test_a_ranking_is_its_pairs_and_weighs_one_less_than_its_responses() -> None:
    record = said(Ranking(ranks=(2, 0, None, 1, 1)), "a", "b", "c", "d", "e")
    tables = tables_of([record])
    pairs = tables.pairs
    assert len(pairs) == 6
    assert pairs.weight.sum() == 3
    for i in range(6):
        one, other = record.judgement.ranks[pairs.first_at[i]], record.judgement.ranks[pairs.second_at[i]]  # type: ignore[union-attr]
        assert one is not None
        assert other is not None
        assert pairs.value[i] == (1.0 if one < other else 0.0 if one > other else 0.5)
    assert sorted(tables.ranks.value) == [0, 1, 1, 2]
    assert len(set(tables.ranks.unit)) == 4


def test_places_are_of_a_response_among_the_same_responses_in_any_order() -> None:
    one = said(Ranking(ranks=(0, 1, 2)), "a", "b", "c")
    same = said(Ranking(ranks=(0, 1, 2)), "c", "a", "b", annotator="bob")
    other = said(Ranking(ranks=(0, 1, 2)), "a", "b", "d", annotator="bob")
    tables = tables_of([one, same, other])
    assert len(set(tables.response_set)) == 2
    assert len(set(tables.ranks.unit)) == 6


def test_units_of_ratings_are_by_data_set_aspect_turn_prompt_and_response() -> None:
    def rating(aspect: str | None = None, turn: int | None = None) -> Rating:
        return Rating(value=2.0, scale=(1.0, 5.0), aspect=aspect, turn=turn)

    records = [
        said(rating(), "x"),
        said(rating(), "x", annotator="bob"),
        said(rating("clear"), "x"),
        said(rating(turn=1), "x"),
        said(rating(), "x", prompt="other"),
        said(rating(), "y"),
        said(rating(), "x", source="other"),
    ]
    tables = tables_of(records)
    assert len(set(tables.ratings.unit)) == 6
    assert tables.ratings.unit[0] == tables.ratings.unit[1]
    assert set(tables.ratings.value) == {0.25}
    assert set(tables.groups) == {("unnamed", ""), ("unnamed", "clear"), ("other", "")}


def test_a_chat_and_its_text_are_one_prompt_but_texts_that_only_join_alike_are_not() -> None:
    chat = Feedback(prompt=(Message(role="user", content="hi"),), responses=("x",), judgement=Thumbs(up=True))
    text = Feedback(prompt="User: hi\nAssistant:", responses=("x",), judgement=Thumbs(up=False))
    assert len(set(tables_of([chat, text]).thumbs.unit)) == 1
    assert len(set(tables_of([said(Thumbs(up=True), "bc", prompt="a"), said(Thumbs(up=True), "c", prompt="ab")]).thumbs.unit)) == 2


def test_who_gave_no_name_counts_as_one_and_other_kinds_as_nothing() -> None:
    records = [
        said(Thumbs(up=True), "x", annotator=None),
        said(Thumbs(up=False), "x", annotator=None),
        said(Thumbs(up=False), "y", annotator=None),
        said(Thumbs(up=False), "y"),
        said(Edit(), "x", "y"),
        said(Comment(text="fine"), "x"),
        said(Ranking(ranks=(0, 1)), "x", "x"),
    ]
    tables = tables_of(records)
    assert tables.annotators == ["ann"]
    assert tables.thumbs.annotator.tolist() == [1, 1, 1, 0]
    assert tables.thumbs.is_shared().tolist() == [False, False, True, True]
    assert (len(tables.pairs), len(tables.ratings), len(tables.ranks)) == (0, 0, 0)
    assert len(tables.pairs.take(np.zeros(0, dtype=bool))) == 0


def test_nothing_is_empty_columns() -> None:
    tables = tables_of([])
    assert len(tables.pairs.is_shared()) == 0
    assert tables.groups == []


def test_a_data_set_s_name() -> None:
    assert data_set(said(Edit(), "x", "y", source="hh", origin="f.jsonl:3")) == "hh"
    assert data_set(said(Edit(), "x", "y", origin="a/f.jsonl:3")) == "a/f.jsonl"
    assert data_set(said(Edit(), "x", "y")) == "unnamed"


def thumbs(prompt: str, i: int, text: str = "x") -> Feedback:
    return Feedback(prompt=prompt, responses=(text,), judgement=Thumbs(up=True), annotator=f"a{i}", source="s")


def test_what_fits_is_all_of_it_and_counted() -> None:
    feedback = [thumbs("q", 0), Feedback(prompt="q", responses=tuple("abc"), judgement=Ranking(ranks=(0, 1, 2)), origin="f:1")]
    found = sample_by_prompt(feedback, 4)
    assert found.records == feedback
    assert found.judgements == {"s": Counter(thumbs=1), "f": Counter(ranking=1)}
    # The ranking costs three pairs.
    assert len(sample_by_prompt(feedback, 3).records) == 1


def test_prompts_stay_whole_but_for_one_and_are_the_same_in_any_order() -> None:
    feedback = [thumbs(f"q{i}", j) for i in range(200) for j in range(5)]
    found = sample_by_prompt(feedback, 303)
    assert len(found.records) == 303
    assert [feedback[i] for i in found.index] == found.records
    sizes = Counter(record.prompt for record in found.records)
    assert sorted(sizes.values()) == [3] + [5] * 60
    shuffled = random.Random(0).sample(feedback, len(feedback))
    assert {record.prompt for record in sample_by_prompt(shuffled, 303).records} == set(sizes)
    assert sum(sum(kinds.values()) for kinds in found.judgements.values()) == 1000


def test_without_a_prompt_the_response_stands_for_it() -> None:
    feedback = [thumbs("", j, f"text {i}") for i in range(100) for j in range(3)]
    sizes = Counter(record.responses for record in sample_by_prompt(feedback, 90).records)
    assert set(sizes.values()) == {3}
    assert len(sizes) == 30
