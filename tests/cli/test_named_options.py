"""An option twice in a group, under names of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_lightning.cli.named_options import expand_named_options
from rlhf_lightning.errors import ConfigError
from tests.fixtures.commands import Outcome


def test_two_tables_have_settings_of_their_own(tmp_path: Path, command: Callable[..., Outcome]):
    (tmp_path / "a.csv").write_text("prompt,response,rating\nq 1,an answer,3\n")
    (tmp_path / "b.csv").write_text("prompt;response;rating\nq 2;an answer;4,5\n")
    outcome = command(
        "stage=inspect", "logger=none", "feedback_source=[csv,late:csv]", f"feedback_source.csv.path={tmp_path}/a.csv",
        "feedback_source.csv.numbers=[rating]", f"feedback_source.late.path={tmp_path}/b.csv", "feedback_source.late.delimiter=';'",
        "feedback_source.late.decimal=','", "feedback_source.late.numbers=[rating]", "feedback_format=[rating]",
        "feedback_format.rating.scale=[1,5]", folder=tmp_path / "run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.error
    records = [json.loads(line) for line in (tmp_path / "run" / "feedback.jsonl").read_text().splitlines()]
    assert [record["judgement"]["value"] for record in records] == [3, 4.5]


def test_other_arguments_stay():
    words = ["feedback_source=csv", "feedback_source=[csv,jsonl]", "feedback_source.csv.dates={a: b}", "stage=[x:y]", "a=[b:c]"]
    assert expand_named_options(words) == words


@pytest.mark.parametrize("argument", ["feedback_source=[csv,csv:csv]", "feedback_source=[a b:csv]", "feedback_source=[:csv]"])
def test_a_name_that_is_no_word_or_is_used_twice_is_refused(argument: str):
    with pytest.raises(ConfigError, match="late:csv"):
        expand_named_options([argument])
