"""The guard against mistyped field names: slips are refused, other words are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format.attributes import AttributesFormat
from rlhf_lightning.feedback.format.comment import CommentFormat
from rlhf_lightning.feedback.format.edit import EditFormat
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.format.ranking import RankingFormat
from rlhf_lightning.feedback.format.rating import RatingFormat
from rlhf_lightning.feedback.format.thumbs import ThumbsFormat
from rlhf_lightning.feedback.format.verdict import VerdictFormat
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.feedback.unknown_fields import UnknownFields, common_prefix_length, is_typo, list_names
from rlhf_lightning.interfaces import TaskPrompt
from rlhf_lightning.task.files import Files


@pytest.mark.parametrize("name", ["chosn", "choosen", "chasen", "chsoen", "Chosen", "hosen", "chosenn", "CHOSN"])
def test_slips(name: str) -> None:
    assert is_typo(name, "chosen")
    with pytest.raises(DataError, match="did you mean 'chosen'"):
        UnknownFields([["chosen"]]).check({name: 1})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ratings", "rating"),
        ("prompt", "prompts"),
        ("prompt2", "prompt"),
        ("prompt_2", "prompt"),
        ("exit", "edit"),
        ("mean", "margin"),
        ("chxxen", "chosen"),
    ],
)
def test_other_words(name: str, known: str) -> None:
    assert not is_typo(name, known)


def test_the_first_part_of_a_path_is_read() -> None:
    unread = UnknownFields([["ratings.overall"], ["prompt"]])
    unread.check({"ratings": 1, "prompt": "", "doc": 2})
    assert unread.notes() == ["fields that no chosen feedback_format reads: doc"]


def test_long_lists_are_cut() -> None:
    assert list_names([f"n{i}" for i in range(25)]).endswith("n19 and 5 more")
    assert (common_prefix_length("abc", "abd"), common_prefix_length("ab", "abc"), common_prefix_length("", "a")) == (2, 2, 0)


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
UNREAD: list[tuple[str, Any]] = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("tools", "[{}]"),
    ("functions", [{"name": "f"}]),
    ("images", ["a.png"]),
    ("image", "a.png"),
    ("audio", {"path": "a.wav"}),
    ("documents", [{"text": "d"}]),
    ("system", "Be brief."),
    ("system_prompt", "Be brief."),
    ("chat_template_kwargs", {"thinking": True}),
]
STRENGTHS: list[tuple[str, Any]] = [("sample_weight", 0.5), ("weights", [1, 2]), ("confidence", 0.9), ("confidence", 0)]


def read(*rows: dict[str, Any], form: Any = None) -> Any:
    return read_feedback([Row(row, f"f.jsonl:{i}", b"") for i, row in enumerate(rows, 1)], [form or PairwiseFormat()])


@pytest.mark.parametrize(("name", "value"), UNREAD + STRENGTHS)
def test_a_field_that_changes_the_row_is_rejected_by_line(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"f.jsonl:2: field '{name}' holds .*ignore_fields=\[{name}\]"):
        read(PAIR, {**PAIR, name: value})


@pytest.mark.parametrize("value", [None, "", [], {}])
@pytest.mark.parametrize("name", ["tools", "system", "images"])
def test_an_empty_one_says_nothing(name: str, value: Any) -> None:
    assert len(read({**PAIR, name: value}).feedback) == 1


def test_it_can_be_quarantined(tmp_path: Path) -> None:
    rows = [Row(row, f"f.jsonl:{i}", b"{}") for i, row in enumerate([PAIR, {**PAIR, "tools": [1]}], 1)]
    reading = read_feedback(rows, [PairwiseFormat()], on_bad="quarantine", quarantine=tmp_path / "bad.jsonl")
    assert (len(reading.feedback), reading.bad) == (1, 1)


def test_a_field_that_a_format_reads_is_its_own() -> None:
    form = RatingFormat(scale=(1, 5), model="system")
    (feedback,) = read({"prompt": "p", "response": "a", "rating": 2, "system": "gpt2"}, form=form).feedback
    assert feedback.models == ("gpt2",)
    with pytest.raises(DataError, match="field 'margin' holds how much better"):
        read({"prompt": "p", "response": "a", "rating": 2, "margin": 2}, form=form)


def test_the_second_half_of_a_prompt_is_not_lost() -> None:
    form = PairwiseFormat(prompt="instruction")
    row = {"instruction": "p", "chosen": "a", "rejected": "b", "input": "more"}
    with pytest.raises(DataError, match="'input' is the second half of the prompt in 'instruction'"):
        read(row, form=form)
    assert read({**row, "input": ""}, form=form).feedback


WEIGHED = {
    "pairwise": (PairwiseFormat(), PAIR),
    "rating": (RatingFormat(scale=(1, 5)), {"prompt": "p", "response": "a", "rating": 2}),
    "ranking": (RankingFormat(), {"prompt": "p", "responses": ["a", "b"], "ranking": [0, 1]}),
    "edit": (EditFormat(), {"prompt": "p", "response": "a", "edit": "b"}),
    "thumbs": (ThumbsFormat(), {"prompt": "p", "response": "a", "label": True}),
    "verdict": (VerdictFormat(), {"prompt": "p", "response_1": "a", "response_2": "b", "verdict": 1}),
    "comment": (CommentFormat(), {"prompt": "p", "response": "a", "comment": "good"}),
    "attributes": (AttributesFormat(scale=(1, 5)), {"prompt": "p", "response": "a", "ratings": {"x": 2}}),
}


@pytest.mark.parametrize(("form", "row"), WEIGHED.values(), ids=WEIGHED.keys())
def test_a_weight_is_the_judgement_s_in_every_format(form: Any, row: dict[str, Any]) -> None:
    plain, weighed = read(row, form=form).feedback, read({**row, "weight": 0.25}, form=form)
    assert [one.weight for one in plain] == [1.0] * len(plain)
    assert [one.weight for one in weighed.feedback] == [0.25] * len(plain)
    assert weighed.notes == []


def test_a_weight_multiplies_the_source_s_and_may_differ_by_rater() -> None:
    row = Row({**PAIR, "weight": 0.5}, "f.jsonl:1", b"", weight=0.5)
    assert read_feedback([row], [PairwiseFormat()]).feedback[0].weight == 0.25
    ratings = {"prompt": "p", "response": "a", "ratings": [1, 2], "weight": [1, 3]}
    assert [one.weight for one in read(ratings, form=RatingFormat(scale=(1, 5))).feedback] == [1.0, 3.0]


@pytest.mark.parametrize("weight", [-1, True, "2", [1, 2], float("nan")])
def test_what_is_no_weight_is_rejected(weight: Any) -> None:
    with pytest.raises(DataError, match=r"f.jsonl:1: weight"):
        read({**PAIR, "weight": weight})


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    file = folder / "task.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.mark.parametrize(("name", "value"), UNREAD)
def test_prompts_of_a_task_are_not_read_without_their_context(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"task.jsonl:2: field '{name}' holds"):
        Files(prompts=written(tmp_path, [{"prompt": "a"}, {"prompt": "b", name: value}]), test_fraction=0)


def test_demonstrations_have_no_weight(tmp_path: Path) -> None:
    path = written(tmp_path, [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d", "weight": 2}])
    assert Files(prompts=path, test_fraction=0).train_prompts()[1] == TaskPrompt("c", {"response": "d", "weight": 2})
    with pytest.raises(DataError, match=r"task.jsonl:2: field 'weight' holds how much the row counts"):
        Files(prompts=path, demonstrations=path, test_fraction=0)
