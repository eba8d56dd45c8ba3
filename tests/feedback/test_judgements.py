"""Feedback made ready: who said what about which prompt, light and lazy."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.feedback.judgements import KINDS, judgement_kind, prompt_share, standardise
from rlhf_lightning.feedback.store import FeedbackFile
from rlhf_lightning.flow import Comment, Edit, Feedback, Message, Ranking, Rating, Spans, Thumbs


def ranked(prompt: str, texts: Sequence[str], ranks: Sequence[int | None]) -> Feedback:
    return Feedback(prompt=prompt, responses=tuple(texts), judgement=Ranking(ranks=tuple(ranks)))


def rated(prompt: str, text: str, value: float, annotator: str | None = None, aspect: str | None = None, weight: float = 1.0) -> Feedback:
    judgement = Rating(value=value, scale=(0, 10), aspect=aspect)
    return Feedback(prompt=prompt, responses=(text,), judgement=judgement, annotator=annotator, weight=weight)


def edited(prompt: str, before: str, after: str) -> Feedback:
    return Feedback(prompt=prompt, responses=(before, after), judgement=Edit())


def test_ratings_carry_their_z_score_and_others_none() -> None:
    records = [rated("p", "a", 1, "ann"), edited("p", "a", "b"), rated("p", "b", 4, "ann"), rated("q", "a", 7, "ann"), rated("q", "b", 7)]
    judged = standardise(records)
    assert [record.feedback for record in judged] == records
    assert [record.z_score is None for record in judged] == [False, True, False, False, False]
    assert [r.z_score for r in judged if r.z_score is not None] == [
        record.z_score for record in standardise([records[i] for i in (0, 2, 3, 4)])
    ]
    assert not math.isnan(judged[0].z_score or 0)


def test_z_scores_are_of_an_annotators_own_aspect() -> None:
    helpful = [rated("p", f"a{i}", value, "ann", "helpful") for i, value in enumerate((2, 4, 6))]
    long = [rated("p", f"a{i}", value, "ann", "long") for i, value in enumerate((9, 9, 10))]
    judged = standardise([record for pair in zip(helpful, long, strict=True) for record in pair])
    scores = [record.z_score for record in judged]
    assert scores[::2] == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])
    assert scores[1::2] == pytest.approx([-math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2)])
    assert [judged.aspects[record.aspect] for record in judged] == ["helpful", "long"] * 3


def test_annotators_are_numbered_and_nobody_is_0() -> None:
    judged = standardise([rated("p", "a", 1, "ann"), rated("p", "b", 1), rated("p", "c", 1, "bob"), rated("q", "a", 2, "ann")])
    assert judged.annotators == (None, "ann", "bob")
    assert [record.annotator for record in judged] == [1, 0, 2, 1]
    assert [record.aspect for record in judged] == [0] * 4


def test_what_weighs_nothing_is_left_out() -> None:
    records = [rated("p", "a", 1, weight=0.0), rated("p", "b", 2, weight=0.1), rated("p", "c", 3)]
    judged = standardise(records)
    assert [record.feedback for record in judged] == records[1:]
    assert [record.z_score for record in judged] == pytest.approx([-1, 1])


EVERY_KIND = [
    rated("p", "a", 1),
    ranked("p", ["a", "b"], [0, 1]),
    ranked("p", ["a", "b", "c"], [0, 1, None]),
    edited("p", "a", "b"),
    Feedback(prompt="p", responses=("a",), judgement=Thumbs(up=True)),
    Feedback(prompt="p", responses=("a",), judgement=Spans(spans=())),
    Feedback(prompt="p", responses=("a",), judgement=Comment(text="good")),
    ranked("p", ["a", "b"], [1, 1]),
]


def test_kinds() -> None:
    assert [judgement_kind(record) for record in EVERY_KIND] == [*KINDS, "pair"]
    assert standardise(EVERY_KIND).kinds == set(KINDS)
    assert standardise(EVERY_KIND)[:2].kinds == {"rating", "pair"}
    assert standardise([]).kinds == set()


def test_records_of_a_file_are_read_when_requested(tmp_path: Path) -> None:
    file = FeedbackFile.write(EVERY_KIND, tmp_path / "feedback.jsonl")
    judged, in_memory = standardise(file), standardise(EVERY_KIND)
    assert [record.feedback for record in judged] == EVERY_KIND
    assert judged.rows.tobytes() == in_memory.rows.tobytes()
    assert judged.rows.itemsize <= 40
    assert judged.texts() == in_memory.texts() == [("p", "a"), ("p", "b"), ("p", "c")]
    assert [record.feedback for record in judged[2:5]] == EVERY_KIND[2:5]
    assert judged[-1].feedback == EVERY_KIND[-1]


def test_the_share_of_a_prompt_never_changes() -> None:
    """Held-out prompts of a finished run must stay held out in the next version too."""
    assert prompt_share("Review of a kettle for a student:\n") == 0.8476391900493518
    assert prompt_share("") == 0.8894159948913374


def test_the_share_of_a_chat_is_that_of_its_text() -> None:
    said = (Message(role="user", content="Hi"), Message(role="assistant", content="Yes?"), Message(role="user", content="A lamp"))
    assert prompt_share(said) == prompt_share("User: Hi\nAssistant: Yes?\nUser: A lamp\nAssistant:")


@given(st.text(max_size=20))
def test_the_share_is_blind_to_form_case_and_white_space(prompt: str) -> None:
    share = prompt_share(prompt)
    assert 0 <= share < 1
    assert prompt_share(f" \n{prompt}\t ") == share
    assert prompt_share(unicodedata.normalize("NFD", prompt)) == share
    assert prompt_share(f"{prompt}Ä b  C") == prompt_share(unicodedata.normalize("NFD", f"{prompt}ä B c"))
