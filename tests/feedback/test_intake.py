"""Reading and cleaning together: what came in, what stayed, and what is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.format.edit import EditFormat
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.format.ranking import RankingFormat
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.intake import Intake, ingest
from rlhf_lightning.feedback.reading import Reader
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.feedback.store import FeedbackFile
from rlhf_lightning.flow import Edit, Feedback

FORMATS = [PairwiseFormat(), RatingFormat(scale=(1, 7)), EditFormat(), RankingFormat()]
ROWS = [
    {"prompt": "p", "chosen": "good", "rejected": "bad"},
    {"prompt": "p", "response": "good", "rating": 6},
    {"prompt": "p", "response": "bad", "rating": 2},
    {"prompt": "p", "response": "bad", "edit": "good"},
    {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [0, 1, 2]},
]


def without_edits(feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]:
    for record in feedback:
        if isinstance(record.judgement, Edit):
            cleaning.remove(record, "an edit")
        else:
            yield record


def shouted(feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]:
    """Says how many it saw, so that the order of the filters shows."""
    number = 0
    for number, record in enumerate(feedback, start=1):  # noqa: B007
        yield record.model_copy(update={"prompt": record.prompt_text.upper()})
    cleaning.notes.append(f"saw {number}")


def counted_first(feedback: Iterable[Feedback], cleaning: Cleaning) -> Iterator[Feedback]:
    """Must see all before it lets one go."""
    cleaning.notes.append(f"{sum(1 for _ in feedback)} in all")
    yield from feedback


def taken(tmp_path: Path, filters, rows=ROWS, on_bad="refuse", **rest) -> Intake:
    origins = [Row(data, f"f:{i}", raw=b"{}") for i, data in enumerate(rows, start=1)]
    reader = Reader(origins, FORMATS, on_bad=on_bad, quarantine=tmp_path / "quarantine.jsonl")
    return ingest(reader, filters, **rest)


def test_everything_is_counted_by_kind_before_and_after_cleaning(tmp_path):
    intake = taken(tmp_path, {"shouted": shouted, "without_edits": without_edits})
    assert intake.collected == {"pair": 1, "rating": 2, "edit": 1, "ranking": 1}
    assert intake.remaining == {"pair": 1, "rating": 2, "ranking": 1}
    assert sum(intake.remaining.values()) == len(intake.feedback) == 4
    assert {record.prompt for record in intake.feedback} == {"P"}
    assert intake.notes == ["shouted: saw 5", "without_edits: removed 1: an edit (f:4)"]


def test_filters_run_in_the_order_given(tmp_path):
    intake = taken(tmp_path, {"without_edits": without_edits, "shouted": shouted})
    assert intake.notes == ["without_edits: removed 1: an edit (f:4)", "shouted: saw 4"]


def test_without_filters_all_stays(tmp_path):
    intake = taken(tmp_path, {})
    assert intake.collected == intake.remaining
    assert (len(intake.feedback), intake.notes) == (5, [])


def test_bad_lines_stop_the_intake_or_are_set_aside_and_reported(tmp_path):
    rows = [*ROWS, {"prompt": "p", "response": "x", "rating": 99}]
    with pytest.raises(DataError, match="1 of 6 lines of feedback are bad"):
        taken(tmp_path, {}, rows)
    assert not (tmp_path / "quarantine.jsonl").exists()
    intake = taken(tmp_path, {}, rows, on_bad="quarantine")
    assert len(intake.feedback) == 5
    assert any("1 of 6 lines are bad and set aside" in note for note in intake.notes)
    assert "f:6" in (tmp_path / "quarantine.jsonl").read_text()


def test_nothing_left_is_reported_with_the_reasons(tmp_path):
    with pytest.raises(DataError, match=r"cleaning left no feedback: without_edits: removed 1: an edit \(f:1\)"):
        taken(tmp_path, {"without_edits": without_edits}, [ROWS[3]])


def test_a_filter_that_must_see_all_gets_what_it_can_go_through_twice(tmp_path):
    filters = {"without_edits": without_edits, "counted_first": counted_first, "shouted": shouted}
    plain = taken(tmp_path, filters, multi_pass=["counted_first"])
    assert plain.notes == ["without_edits: removed 1: an edit (f:4)", "counted_first: 4 in all", "shouted: saw 4"]
    between = partial(FeedbackFile.write, path=tmp_path / "between.jsonl")
    store = partial(FeedbackFile.write, path=tmp_path / "feedback.jsonl")
    filed = taken(tmp_path, filters, multi_pass=["counted_first"], store=store, intermediate_store=between)
    assert list(filed.feedback) == plain.feedback
    assert (filed.notes, filed.remaining, filed.collected) == (plain.notes, plain.remaining, plain.collected)


def test_bad_lines_are_refused_before_a_filter_that_must_see_all_sees_one(tmp_path):
    rows = [*ROWS, {"prompt": "p", "response": "x", "rating": 99}]
    with pytest.raises(DataError, match="1 of 6 lines"):
        taken(tmp_path, {"counted_first": counted_first}, rows, multi_pass=["counted_first"])
