"""Which rule selected a judgement's question."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating
from rlhf_lightning.rounds.artefacts import Group, with_selection

QUESTIONS = [
    Group(prompt="p", responses=("a", "b"), selected_by="random"),
    Group(prompt="p", responses=("a", "c"), selected_by="bald"),
    Group(prompt="q", responses=("a", "b"), selected_by="random"),
]
RANKED, RATED = Ranking(ranks=(0, 1)), Rating(value=1, scale=(0, 1))


def rules(*judged: tuple[str, tuple[str, ...], Any], questions: list[Group] = QUESTIONS) -> list[str | None]:
    records = [Feedback(prompt=prompt, responses=responses, judgement=judgement) for prompt, responses, judgement in judged]
    return [record.selected_by for record in with_selection(records, questions)]


def test_a_ranking_belongs_to_the_question_with_its_responses_in_any_order():
    assert rules(("p", ("b", "a"), RANKED), ("p", ("c", "a"), RANKED), ("q", ("a", "b"), RANKED)) == ["random", "bald", "random"]


def test_a_judgement_of_a_response_in_two_questions_is_not_of_the_random_part():
    assert rules(("p", ("a",), RATED), ("p", ("b",), RATED), ("q", ("a",), RATED), ("p", ("a", "better"), Edit())) == [
        "bald", "random", "random", "bald",
    ]  # fmt: skip
    assert rules(("p", ("a",), RATED), questions=QUESTIONS[1::-1]) == ["bald"]


def test_without_rules_feedback_stays_as_it_is():
    assert rules(("p", ("a",), RATED), questions=[Group(prompt="p", responses=("a", "b"))]) == [None]
