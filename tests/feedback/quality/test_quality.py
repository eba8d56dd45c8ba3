"""Everything together: plain values, data sets apart, samples, sentences."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from rlhf_lightning.feedback.quality.quality import measure_quality
from rlhf_lightning.feedback.store import FeedbackFile
from rlhf_lightning.flow import Comment, Edit, Feedback, Ranking, SpanLabel, Spans, Thumbs


@pytest.fixture(name="mixed")
def _mixed(gather) -> list[Feedback]:
    feedback = gather(["pair", "ranking", "rating", "thumbs"], 30, 0).feedback
    more = [
        Feedback(prompt="q", responses=("x",), judgement=Comment(text="fine"), annotator="cyd", source="notes"),
        Feedback(prompt="q", responses=("x",), judgement=Spans(spans=(SpanLabel(start=0, end=1, value=-1.0),)), source="notes"),
        Feedback(prompt="q", responses=("x", "y"), judgement=Edit(), annotator="cyd", seconds=0.0, source="notes"),
    ]
    return [*feedback, *more]


def test_it_is_json_and_counts_add_up(mixed: list[Feedback]) -> None:
    quality = measure_quality(mixed)
    plain = json.loads(json.dumps(dataclasses.asdict(quality), allow_nan=False))
    assert set(plain["data_sets"]) == {"crowd.jsonl", "notes"}
    assert plain["overall"]["judgements"] == len(mixed) == sum(part["judgements"] for part in plain["data_sets"].values())
    assert plain["data_sets"]["notes"]["kinds"] == {"comment": 1, "spans": 1, "edit": 1}
    assert (quality.data_sets["notes"].measured, quality.data_sets["notes"].named) == (3, 2)
    assert {one.kind for one in quality.overall.agreement} == {"pair", "ranking", "rating", "thumbs"}
    assert len(quality.data_sets["crowd.jsonl"].annotators) == 20
    assert [one.name for one in quality.overall.annotators][-1] == "cyd"


def test_it_says_what_the_parts_say(mixed: list[Feedback]) -> None:
    from rlhf_lightning.feedback.quality.agreement import agreement
    from rlhf_lightning.feedback.quality.label_noise import label_noise
    from rlhf_lightning.feedback.quality.reliability import annotator_reliability
    from rlhf_lightning.feedback.quality.votes import tables_of

    overall = measure_quality(mixed).overall
    assert overall.agreement == agreement(tables_of(mixed))
    assert overall.annotators == annotator_reliability(mixed)
    found = [noise for noise in label_noise(mixed).judgements if noise and noise.suspect]
    assert sum(overall.noise.suspects.values()) == len(found)
    assert [one.score for one in overall.noise.examples] == sorted((noise.score for noise in found), reverse=True)[:50]


def test_one_data_set_is_measured_once() -> None:
    feedback = [Feedback(prompt="q", responses=("x",), judgement=Thumbs(up=True), source="s")]
    quality = measure_quality(feedback)
    assert quality.overall is quality.data_sets["s"]


def test_much_feedback_is_sampled_and_says_so(mixed: list[Feedback], tmp_path) -> None:
    stored = FeedbackFile.write(mixed, tmp_path / "feedback.jsonl")
    quality = measure_quality(stored, cap=150)
    assert quality.cap == 150
    assert quality.overall.measured < quality.overall.judgements == len(mixed)
    assert f"of {len(mixed):,} judgements" in quality.lines()[0]
    assert quality == measure_quality(mixed, cap=150)


def test_nothing_is_measured_of_nothing() -> None:
    quality = measure_quality([])
    assert (quality.overall.judgements, quality.data_sets) == (0, {})
    assert json.dumps(dataclasses.asdict(quality), allow_nan=False)


def test_a_ranking_left_unranked_is_no_error() -> None:
    feedback = [
        Feedback(prompt="q", responses=("x", "y", "z"), judgement=Ranking(ranks=(None, None, None)), annotator="ann", positions=(0, 1, 2)),
        Feedback(prompt="q", responses=("x", "y"), judgement=Ranking(ranks=(0, None)), annotator="bob"),
    ]
    assert measure_quality(feedback).overall.contradictions.pairs == 0


def test_agreement_is_of_uniform_questions(gather) -> None:
    """Chosen questions are near ties, about which people disagree more."""
    feedback = gather(["pair"], 30, 0).feedback
    cut = len(feedback) // 2
    marked = [*feedback[:cut], *(record.model_copy(update={"selected_by": "bald"}) for record in feedback[cut:])]
    overall = measure_quality(marked).overall
    assert overall.agreement == measure_quality(feedback[:cut]).overall.agreement != measure_quality(feedback).overall.agreement
    assert overall.judgements == len(feedback)


def pair(i: int, first: bool, annotator: str = "ann", seconds: float = 60.0) -> Feedback:
    ranks = (0, 1) if first else (1, 0)
    return Feedback(
        prompt=f"q{i}",
        responses=("a longer text", "text"),
        judgement=Ranking(ranks=ranks),
        annotator=annotator,
        positions=(0, 1),
        seconds=seconds,
    )


def test_a_bias_for_the_first_and_the_longer_and_haste_are_reported() -> None:
    lines = measure_quality([pair(i, i % 10 < 8, seconds=0.01) for i in range(200)]).lines()
    assert any(line.startswith("the response shown first wins 80 % of comparisons") for line in lines)
    assert any(line.startswith("the longer response wins 80 %") for line in lines)
    assert any(line.startswith("100 % of the judgements were made faster") for line in lines)
    assert any("neither agreement nor reliability can be measured" in line for line in lines)


def test_what_may_be_chance_is_not_reported() -> None:
    lines = measure_quality([pair(i, i % 2 == 0) for i in range(100)]).lines()
    assert not any("wins" in line or "faster" in line or "wrong" in line for line in lines)


def test_agreement_contradictions_and_who_tosses_coins_are_reported() -> None:
    rng = np.random.default_rng(0)
    feedback = [pair(i, i % 2 == 0, name) for i in range(150) for name in ("ann", "bob", "cyd")]
    feedback += [pair(i, bool(rng.random() < 0.5), "dud") for i in range(150)]
    text = "\n".join(measure_quality(feedback).lines())
    assert "agreement on pairs: Krippendorff's alpha 0." in text
    assert "1 of 4 annotators with enough overlap are hardly better than chance: dud" in text
    assert "pairs that several annotators compared were judged both ways" in text
    assert "judgements are probably wrong" in text


def test_several_data_sets_are_distinguished() -> None:
    feedback = [Feedback(prompt="q", responses=("x",), judgement=Thumbs(up=True), source=name) for name in ("one", "two")]
    assert [line.split(":")[0] for line in measure_quality(feedback).lines()] == ["one", "two"]
