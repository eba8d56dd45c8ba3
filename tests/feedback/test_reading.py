"""The one door: all rows or none, every bad line named, typos caught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import BadLine, Row, describe_value, finite_number, label, nonblank_text
from rlhf_lightning.flow import Feedback, Rating

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


def rows(*data: dict[str, Any]) -> list[Row]:
    return [Row(d, f"f.jsonl:{i}", json.dumps(d).encode()) for i, d in enumerate(data, 1)]


def test_lines_that_fail_alike_are_one_line_with_their_count_and_first_places() -> None:
    off_scale = [{"prompt": "p", "response": "r", "rating": 10 + i} for i in range(30)]
    with pytest.raises(DataError) as error:
        read_feedback(rows({"prompt": "p", "response": "r", "rating": True}, *off_scale), [RatingFormat(scale=(1, 5))])
    head, *faults = str(error.value).splitlines()
    assert head.startswith("31 of 31 lines of feedback are bad")
    assert [fault.partition(": ")[0].strip() for fault in faults] == ["f.jsonl:1", "f.jsonl:2, f.jsonl:3, f.jsonl:4 and 27 more"]
    assert "10, off the scale 1 to 5" in faults[1]


def test_no_more_than_twenty_kinds_of_faults_are_listed() -> None:
    words = "abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(DataError) as error:
        read_feedback([BadLine(f"f.jsonl:{i}", f"fault {word}") for i, word in enumerate(words, 1)], [PairwiseFormat()])
    faults = str(error.value).splitlines()[1:]
    assert len(faults) == 21
    assert faults[-1].strip().startswith("... and 6 more")


def test_text_that_is_a_number_names_the_setting_of_a_table() -> None:
    with pytest.raises(DataError, match=r"feedback_source\.csv\.numbers"):
        read_feedback(rows({"prompt": "p", "response": "r", "rating": "4"}), [RatingFormat(scale=(1, 5))])


def test_quarantine_sets_aside_exactly_the_bad_lines(tmp_path: Path) -> None:
    aside = tmp_path / "new" / "bad.jsonl"
    broken = BadLine("f.jsonl:9", "not JSON", b"{\xe9")
    items = [*rows(GOOD, {"chosen": "a"}, GOOD), broken]
    reading = read_feedback(items, [PairwiseFormat()], on_bad="quarantine", quarantine=aside)
    assert (len(reading.feedback), reading.bad) == (2, 2)
    assert f"2 of 4 lines are bad and set aside in {aside}" in reading.notes
    written = [json.loads(line) for line in aside.read_text("utf-8").splitlines()]
    assert [entry["origin"] for entry in written] == ["f.jsonl:2", "f.jsonl:9"]
    assert written[0]["raw"] == '{"chosen": "a"}'
    assert written[1]["raw"] == "{\\xe9"
    assert "'rejected' is missing" in written[0]["reason"]
    assert list(aside.parent.iterdir()) == [aside]


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([*rows(GOOD, {}, {})], id="more bad than the share allowed"),
        pytest.param([*rows(GOOD, GOOD), BadLine("f:1", "damaged", b"", "fatal")], id="a spoilt file"),
    ],
)
def test_quarantine_does_not_excuse_everything_and_leaves_nothing(items: list[Row | BadLine], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_feedback(items, [PairwiseFormat()], on_bad="quarantine", quarantine=tmp_path / "bad.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_breaks_leaves_nothing_aside(tmp_path: Path) -> None:
    def source() -> Any:
        yield from rows(GOOD, {})
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        read_feedback(source(), [PairwiseFormat()], on_bad="quarantine", quarantine=tmp_path / "bad.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_no_bad_line_no_quarantine_file(tmp_path: Path) -> None:
    reading = read_feedback(rows(GOOD), [PairwiseFormat()], on_bad="quarantine", quarantine=tmp_path / "bad.jsonl")
    assert (reading.bad, list(tmp_path.iterdir())) == (0, [])


def test_a_quarantine_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't set bad lines aside"):
        read_feedback(rows(GOOD, {}), [PairwiseFormat()], on_bad="quarantine", quarantine=tmp_path / "file" / "bad.jsonl")


def test_what_must_be_chosen() -> None:
    with pytest.raises(ConfigError, match="feedback_format"):
        read_feedback(rows(GOOD), [])
    with pytest.raises(ConfigError, match="quarantine"):
        read_feedback(rows(GOOD), [PairwiseFormat()], on_bad="quarantine")
    with pytest.raises(DataError, match="no rows"):
        read_feedback([], [PairwiseFormat()])


def test_a_row_may_fit_several_formats_and_is_bad_as_a_whole() -> None:
    formats = [PairwiseFormat(), RatingFormat(scale=(0, 5))]
    both = GOOD | {"response": "a", "rating": 4}
    assert [r.judgement.kind for r in read_feedback(rows(both), formats).feedback] == ["ranking", "rating"]
    with pytest.raises(DataError, match="rating is 7, off the scale 0 to 5"):
        read_feedback(rows(both | {"rating": 7}), formats)


def test_a_row_of_no_format_says_what_was_looked_for() -> None:
    with pytest.raises(DataError, match=r"looks for 'chosen' and 'rejected'; rating looks for 'rating' or 'ratings'.*has: prompt, votes"):
        read_feedback(rows({"prompt": "p", "votes": [1]}), [PairwiseFormat(), RatingFormat()])


def test_unread_fields_are_noted_once_and_a_plural_is_another_word() -> None:
    notes = read_feedback(rows(GOOD | {"doc": 1, "prompts": 2}, GOOD | {"doc": 1}), [PairwiseFormat()]).notes
    assert notes == ["fields that no chosen feedback_format reads: doc, prompts"]


def test_a_format_that_does_not_declare_its_fields_switches_the_guard_off() -> None:
    def anything(row: Row) -> list[Feedback]:
        return [Feedback(prompt="p", responses=("r",), judgement=Rating(value=1, scale=(0, 1)), origin=row.origin)]

    assert read_feedback(rows({"chosn": 1}), [PairwiseFormat(), anything]).notes == []


def test_the_records_own_rules_are_reported_with_the_line() -> None:
    def careless(row: Row) -> list[Feedback]:
        return [Feedback(prompt="p", responses=("r",), judgement=Rating(value=9, scale=(0, 1)))]

    with pytest.raises(DataError, match=r"f\.jsonl:1: rating 9 is off its scale 0 to 1"):
        read_feedback(rows({}), [careless])


def test_names_from_a_file_cannot_write_to_the_terminal() -> None:
    with pytest.raises(DataError) as error:
        read_feedback(rows({"\x1b[31mred": 1, "x" * 5000: 2}), [PairwiseFormat()])
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 500


def test_fields_by_path_and_of_objects_inside() -> None:
    row = Row({"mean": {"quality": 3}, "a.b": "dotted", "no": None}, "f:1")
    assert (row.number("mean.quality"), row.text("a.b")) == (3.0, "dotted")
    assert (row.get("mean.none"), row.get("a.c"), row.get(None), row.get("no")) == (None, None, None, None)
    assert (row.has("no"), row.has("mean.none")) == (True, False)
    with pytest.raises(DataError, match=r"items\[0\]\.text is null"):
        row.inside({"text": None}, "items[0]").text("text")
    with pytest.raises(DataError, match="'qualty' is missing, did you mean 'quality'"):
        Row({"quality": 1}, "f:1").number("qualty")


@pytest.mark.parametrize("value", [True, "5", None, [1], {}, float("nan"), float("-inf"), 10**400])
def test_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(DataError, match="x must be a finite number, not "):
        finite_number(value, "x")


def test_labels_and_kinds() -> None:
    assert (label(7, "x"), label("anna", "x"), nonblank_text(" a ", "x")) == ("7", "anna", " a ")
    for value in (True, 1.5, " "):
        with pytest.raises(DataError):
            label(value, "x")
    assert [describe_value(v) for v in (None, False, 2, [], {})] == ["null", "false", "a number (2)", "a list", "an object"]
    assert len(describe_value("x" * 10_000)) < 60
