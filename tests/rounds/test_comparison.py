"""The blind comparison of two policies: outcomes that need no judge, random order, and the win rate."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.rounds.comparison import Pair, blind_questions, choose_pairs, win_rate


def answer(prompt: str, responses: tuple[str, str], ranks: tuple[int | None, int | None]) -> Feedback:
    return Feedback(prompt=prompt, responses=responses, judgement=Ranking(ranks=ranks))


PAIRS = [Pair(f"p{i}", "old", "new") for i in range(40)]


def test_equal_and_empty_responses_need_no_judge():
    assert [Pair("p", *texts).verdict for texts in (("a", " a "), ("a", ""), ("", "a"), (" ", "\0"), ("a", "b"))] == [
        0.5,
        0.0,
        1.0,
        0.5,
        None,
    ]
    assert blind_questions([Pair("p", "a", "a"), Pair("p", "a", "")], 0) == []


def test_the_order_of_a_question_is_random_by_the_seed():
    orders = [[group.responses[0] for group in blind_questions(PAIRS, seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert 10 < orders[0].count("new") < 30


def test_the_win_rate_follows_the_texts_and_not_their_order():
    questions = blind_questions(PAIRS, 3)
    answers = [answer(group.prompt, group.responses, (0, 1) if group.responses[0] == "new" else (1, 0)) for group in questions]
    assert win_rate(PAIRS, answers, 0.95).mean == 1.0
    ties = [answer(group.prompt, group.responses, (0, 0)) for group in questions]
    assert win_rate(PAIRS, ties, 0.95).mean == 0.5
    half = win_rate([*PAIRS, *(Pair(f"q{i}", "same", "same") for i in range(40))], answers, 0.95)
    assert half.mean == 0.75
    assert half.n == 80


def test_several_annotators_of_a_pair_are_one_cluster():
    ones = [answer(f"p{i}", ("old", "new"), (1, 0) if i % 2 else (0, 1)) for i in range(40)]
    single, triple = win_rate(PAIRS, ones, 0.95), win_rate(PAIRS, ones * 3, 0.95)
    assert triple.high - triple.low == pytest.approx(single.high - single.low, rel=0.05)


def test_answers_to_other_questions_do_not_count():
    strays = [answer("p0", ("old", "other"), (0, 1)), answer("p1", ("old", "new"), (0, None))]
    assert win_rate(PAIRS, [*strays, answer("p2", ("old", "new"), (1, 0))], 0.95).n == 1
    with pytest.raises(DataError, match="rankings"):
        win_rate(PAIRS, strays, 0.95)


def test_a_prompt_s_same_two_texts_are_asked_once():
    pairs = [Pair("p", "a", "b"), Pair("p", "b", "a"), Pair("p", "a", "c"), Pair("q", "a", "b")]
    assert choose_pairs(pairs, 10) == [pairs[0], pairs[2], pairs[3]]
    assert choose_pairs(pairs, 2) == [pairs[0], pairs[2]]
