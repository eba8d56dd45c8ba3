"""Everything together: plain values, data sets apart, samples, sentences."""

from __future__ import annotations

import dataclasses
import json

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
    from rlhf_lightning.feedback.quality.label_noise import suspects
    from rlhf_lightning.feedback.quality.reliability import annotator_reliability

    overall = measure_quality(mixed).overall
    assert overall.agreement == agreement(mixed)
    assert overall.annotators == annotator_reliability(mixed)
    found = suspects(mixed)
    assert sum(overall.noise.suspects.values()) == len(found)
    assert [one.score for one in overall.noise.examples] == [noise.score for _, noise in found[:50]]


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
