"""Nothing that is measured on was learned from: no prompt on both sides, or no text where prompts can't be divided."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.judgements import prompt_share, standardise
from rlhf_lightning.feedback.split import Split, split_judgements
from rlhf_lightning.flow import Feedback, Ranking, Rating


def ranked(prompt: str, texts: Sequence[str]) -> Feedback:
    return Feedback(prompt=prompt, responses=tuple(texts), judgement=Ranking(ranks=tuple(range(len(texts)))))


def rated(prompt: str, text: str, value: float = 5) -> Feedback:
    return Feedback(prompt=prompt, responses=(text,), judgement=Rating(value=value, scale=(0, 10)))


def divided(records: Sequence[Feedback], fraction: float = 0.15) -> Split:
    return split_judgements(standardise(records), fraction)


def texts_of(division: Split) -> list[set[str]]:
    return [{text for record in side for text in record.feedback.responses} for side in (division.training, division.held_out)]


def test_a_division_shares_no_prompt_and_a_prompts_side_is_its_own() -> None:
    records = standardise([ranked(f"prompt {i % 2000}", [f"a{i}", "b"]) for i in range(6000)])
    division = split_judgements(records, 0.15)
    assert (division.by, division.note, division.left_out, division.training.by_text) == ("prompt", "", 0, False)
    sides = [{record.feedback.prompt for record in side} for side in (division.training, division.held_out)]
    assert not sides[0] & sides[1]
    assert sorted([*division.training.rows["index"], *division.held_out.rows["index"]]) == list(range(6000))
    assert sides[1] == {f"prompt {i}" for i in range(2000) if prompt_share(f"prompt {i}") < 0.15}
    assert len(sides[1]) / 2000 == pytest.approx(0.15, abs=0.03)
    fewer = split_judgements(records[::-7], 0.15)
    for side, prompts in zip((fewer.training, fewer.held_out), sides, strict=True):
        assert {record.feedback.prompt for record in side} <= prompts
    assert {record.feedback.prompt for record in split_judgements(records, 0.3).held_out} > sides[1]


def test_chosen_questions_are_learned_from_and_not_measured_on() -> None:
    records = [ranked(f"prompt {i % 200}", [f"a{i}", "b"]) for i in range(1000)]
    marks = ["random" if i % 4 == 0 else "d_optimal" for i in range(1000)]
    marked = [record.model_copy(update={"selected_by": mark}) for record, mark in zip(records, marks, strict=True)]
    division, plain = divided(marked), divided(records)
    assert len(division.training) == len(plain.training)
    assert {record.feedback.selected_by for record in division.held_out} == {"random"}
    assert f"{len(division.held_out)} uniform questions among {len(plain.held_out)}" in division.note
    assert not division.training.by_text
    chosen = divided([record.model_copy(update={"selected_by": "bald"}) for record in records])
    assert len(chosen.held_out) == len(plain.held_out)


@pytest.mark.parametrize("prompt", ["", "Summarise the story."])
def test_ratings_of_texts_are_held_out_by_text(prompt: str) -> None:
    records = [rated(prompt, f"text {i % 400}", i % 11) for i in range(1200)]
    division = divided(records)
    training, held_out = texts_of(division)
    assert not training & held_out
    assert held_out == {f"text {i}" for i in range(400) if prompt_share(f"text {i}") < 0.15}
    assert division.by == "text"
    assert f"{len(training)} texts to learn from and {len(held_out)} held out, none on both sides" in division.note
    assert ("without a prompt" if not prompt else "on 1 prompt:") in division.note
    assert division.left_out == 0
    assert division.training.by_text
    again = divided(records[:600])
    assert texts_of(again)[1] <= held_out, "a text's side depends on the text alone"


def test_pairs_that_share_texts_stay_together() -> None:
    """Rankings of three, and pairs that chain two of them."""
    records = [ranked("p", [f"{i} a", f"{i} b", f"{i} c"]) for i in range(200)]
    records += [ranked("p", [f"{i} a", f"{i + 1} c"]) for i in range(0, 200, 4)]
    division = divided(records)
    training, held_out = texts_of(division)
    assert not training & held_out
    assert division.left_out == 0
    assert len(division.training) + len(division.held_out) == len(records)
    assert 0.07 <= len(division.held_out) / len(records) <= 0.3


def test_a_tournament_leaves_out_what_compares_both_sides() -> None:
    texts = [f"text {i}" for i in range(30)]
    records = [ranked("p", pair) for pair in itertools.combinations(texts, 2)]
    division = divided(records)
    training, held_out = texts_of(division)
    assert training
    assert held_out
    assert not training & held_out
    assert len(division.training) + len(division.held_out) + division.left_out == len(records)
    assert len(division.held_out) / (len(division.training) + len(division.held_out)) == pytest.approx(0.15, abs=0.05)
    assert f"{division.left_out} judgements compare a text of one side with one of the other and are left out" in division.note


def test_a_large_component_is_learned_from_and_the_rest_held_out() -> None:
    records = [ranked("p", ["hub", f"text {i}"]) for i in range(90)] + [ranked("p", [f"a {i}", f"b {i}"]) for i in range(10)]
    division = divided(records)
    assert division.left_out == 0
    assert "hub" in texts_of(division)[0]
    assert 1 <= len(division.held_out) <= 15


def test_texts_without_a_prompt_beside_prompts() -> None:
    records = [rated("", f"text {i}") for i in range(100)] + [ranked(f"prompt {i}", [f"x{i}", f"y{i}"]) for i in range(100)]
    division = divided(records)
    assert division.by == "prompt"
    assert "100 judgements without a prompt are held out by text, the others by prompt" in division.note
    for share, texts in zip((0.85, 0.15), texts_of(division), strict=True):
        assert sum(text.startswith("text") for text in texts) / 100 == pytest.approx(share, abs=0.12)
        assert sum(text.startswith("x") for text in texts) / 100 == pytest.approx(share, abs=0.12)


def test_few_prompts_that_fall_on_one_side_are_divided_by_text() -> None:
    prompts = [prompt for prompt in map(str, range(100)) if prompt_share(prompt) > 0.5][:3]
    division = divided([rated(prompt, f"text {i} {prompt}") for i in range(50) for prompt in prompts])
    assert division.by == "text"
    assert "on 3 prompts, too few to divide" in division.note
    assert not texts_of(division)[0] & texts_of(division)[1]


@pytest.mark.parametrize("count", range(2, 9))
def test_tiny_sets_have_two_sides(count: int) -> None:
    for records in ([rated("", f"{i}") for i in range(count)], [ranked("p", [f"{i} a", f"{i} b"]) for i in range(count)]):
        division = divided(records)
        assert len(division.held_out) == 1
        assert len(division.training) == count - 1


@pytest.mark.parametrize(
    "records", [[rated("", "a")], [ranked("p", ["a", "b"])], [ranked("p", ["a", "b"]), ranked("p", ["b", "c"])], [rated("", "a")] * 3]
)
def test_what_can_t_be_divided_leaves_a_side_empty(records: list[Feedback]) -> None:
    division = divided(records)
    assert not (division.training and division.held_out)


def test_batches_take_texts_one_by_one() -> None:
    """Rows of one prompt come in batches in the file's order; those of texts are shuffled."""
    division = divided([rated("p", f"text {i}") for i in range(100)])
    assert len(set(division.training.rows["prompt"].tolist())) == len(division.training)


records_of = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(records_of, st.floats(0.05, 0.6), st.randoms(use_true_random=False))
def test_no_text_is_ever_on_both_sides_in_whatever_order(chosen: list[list[int]], fraction: float, rng: random.Random) -> None:
    records = [rated("", f"t{c[0]}") if len(c) == 1 else ranked("", [f"t{i}" for i in c]) for c in chosen]
    division = divided(records, fraction)
    training, held_out = texts_of(division)
    assert not training & held_out
    assert len(division.training) + len(division.held_out) + division.left_out == len(records)
    shuffled = list(records)
    rng.shuffle(shuffled)
    assert texts_of(divided(shuffled, fraction)) == [training, held_out]
