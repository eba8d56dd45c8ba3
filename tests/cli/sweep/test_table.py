"""The end of a sweep: a table on the terminal, a CSV with everything, a page."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from rlhf_lightning.cli.sweep.table import SweepTable


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture
def told(capsys, monkeypatch):
    """What a sweep's end prints."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(SweepTable, "failed", 0)
    monkeypatch.setattr(SweepTable, "folder", None)

    def end(folder: Path) -> str:
        SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))
        return capsys.readouterr().out

    return end


def test_the_file_has_a_row_for_every_job_with_everything(jobs, told):
    told(jobs)
    rows = rows_of(jobs)
    assert [(row["job"], row["advantage"], row["seed"]) for row in rows[:4]] == [
        ("0", "gae", "1"), ("1", "gae", "2"), ("2", "gae", "3"), ("3", "rloo", "1")
    ]  # fmt: skip
    assert [row["objective"] for row in rows] == ["0.1", "0.2", "0.3", "failed", "0.7", "failed"]
    assert rows[2]["long/name"] == "1.0"
    assert (rows[3]["error"], rows[3]["kl"]) == ("RuntimeError: out of [memory]", "")


def test_the_terminal_has_a_line_for_each_choice_where_seeds_were_swept(jobs, told):
    out = told(jobs)
    assert "6 jobs, 2 failed; means over seeds" in out
    lines = {line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]] for line in out.splitlines() if "│" in line}
    assert lines["gae"] == ["3", "0.2", "[-0.04841, 0.4484]", "0.5", "3"]
    assert lines["rloo"][:3] == ["1 of 3", "0.7", ""]
    assert "long/name" not in out
    assert "a.b" not in out, "what all jobs share is in the file"
    assert "job 3 failed: RuntimeError: out of [memory]" in out
    assert SweepTable.failed == 2
    assert str(jobs / "sweep.html") in out


def test_the_terminal_has_a_line_for_each_job_without_seeds(tmp_path, job, told):
    for number, rate in enumerate(("0.1", "0.2")):
        job(tmp_path / str(number), [f"ppo.learning_rate={rate}"], float(number))
    out = told(tmp_path)
    assert "2 jobs" in out
    assert "means over seeds" not in out
    assert [line.split("│")[2].strip() for line in out.splitlines() if line.startswith("│")] == ["0.1", "0.2"]
    assert SweepTable.failed == 0


def test_a_sweep_without_jobs_writes_nothing(tmp_path, told):
    assert told(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_is_cut_short_tells_what_there_is_and_how_it_goes_on(jobs, told, capsys):
    SweepTable().on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(jobs)}}}))
    with pytest.raises(KeyboardInterrupt), SweepTable.summary():
        raise KeyboardInterrupt
    outcome = capsys.readouterr()
    assert "6 jobs, 2 failed" in outcome.out
    assert f"the same command with hydra.sweep.dir={jobs}" in outcome.err
    with pytest.raises(SystemExit), SweepTable.summary():
        raise SystemExit(2)
    assert capsys.readouterr().out == "", "no sweep is under way"


def test_where_there_is_no_terminal_every_word_is_whole(tmp_path, job, told, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for number in range(2):
        job(tmp_path / str(number), [f"policy_kl_control.{name * 3}={number}" for name in ("coefficient", "target", "horizon")], 1.0)
    assert "policy_kl_control.horizonhorizonhorizon" in told(tmp_path)


def test_a_narrow_terminal_has_no_markup_of_a_value(tmp_path, job):
    from rlhf_lightning.cli.sweep.jobs import read_jobs
    from rlhf_lightning.cli.sweep.table import terminal_table

    for number, value in enumerate(("[bold]x", "[red]y")):
        job(tmp_path / str(number), [f"a={value}"], 1.0)
    console = Console(width=120, record=True)
    console.print(terminal_table(read_jobs(tmp_path)))
    assert "[bold]x" in console.export_text()
