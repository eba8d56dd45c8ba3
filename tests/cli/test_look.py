"""`rlhf-lightning look`: what is printed, and that its command works."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_lightning.cli.look import look
from rlhf_lightning.errors import ConfigError, DataError
from tests.fixtures.commands import Outcome

ROWS = "Frage;Antwort;Ada;Ben\r\n" + "".join(f"Was ist Ding {i}?;Ein Ding für {i}.;{1 + i % 5};{'' if i % 2 else 3}\r\n" for i in range(30))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "Bögen 1.csv").write_bytes(ROWS.encode("cp1252"))
    return tmp_path / "Bögen 1.csv"


def test_the_printed_command_reads_the_file_as_printed(
    file: Path, tmp_path: Path, command: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
):
    look([str(file)])
    output = capsys.readouterr().out
    assert "semicolon, cp1252; 30 rows" in output
    assert "Ada: 1 on a scale of 1 to 5" in output
    words = shlex.split(next(line for line in output.splitlines() if "python train.py" in line))
    outcome = command(*words[2:], folder=tmp_path / "run")
    assert outcome.code == 0, outcome.error
    records = [json.loads(line) for line in (tmp_path / "run" / "feedback.jsonl").read_text().splitlines()]
    assert len(records) == 45
    assert {record["annotator"] for record in records} == {"Ada", "Ben"}


def test_no_format_fits_ends_with_the_proposal_and_a_file_is_a_source(file: Path, tmp_path: Path, command: Callable[..., Outcome]):
    outcome = command("stage=inspect", f"feedback_source={file}", folder=tmp_path / "run")
    assert outcome.code == 2
    assert "rlhf-lightning look" in outcome.error
    assert "feedback_format.rating.raters=[Ada,Ben]" in outcome.error


def test_files_without_judgements_and_no_file_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.jsonl").write_text('{"prompt": "What is it?", "response": "It is a thing."}\n')
    with pytest.raises(DataError, match=r"a\.jsonl"):
        look([str(tmp_path / "a.jsonl")])
    assert "prompt, response" in capsys.readouterr().out
    for words in ([], ["--all"]):
        with pytest.raises(ConfigError, match="look FILE"):
            look(words)
    with pytest.raises(DataError, match="no such file"):
        look([str(tmp_path / "absent.csv")])
