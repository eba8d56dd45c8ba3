"""Before a sweep every value is checked once, so that no job starts where one is wrong."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rlhf_lightning.cli.sweep.check import jobs_to_check
from rlhf_lightning.errors import ConfigError


def jobs(*words: str) -> list[list[str]]:
    return jobs_to_check(OverridesParser.create().parse_overrides(list(words)))


def test_each_value_stands_beside_the_first_of_the_others():
    assert jobs("a=1,2", "b=x", "c=p,q,r") == [
        ["a=1", "b=x", "c=p"],
        ["a=2", "b=x", "c=p"],
        ["a=1", "b=x", "c=q"],
        ["a=1", "b=x", "c=r"],
    ]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("a=choice(1,2)", ["a=1", "a=2"]),
        ("a=range(1,500)", ["a=1", "a=499"]),
        ("a=interval(0.1,0.5)", ["a=0.1", "a=0.5"]),
        ("a=[1,2],[3]", ["a=[1,2]", "a=[3]"]),
        ("+a=1,2", ["+a=1", "+a=2"]),
        ("~a", ["~a"]),
        ("a='1,2'", ["a='1,2'"]),
    ],
)
def test_the_values_of_a_word(word, values):
    assert [job[0] for job in jobs(word)] == values


def test_a_range_without_values_is_refused():
    with pytest.raises(ConfigError, match=r"names no value"):
        jobs("a=range(3,3)")


@pytest.mark.parametrize("word", ["sft.epochs=1,0", "schedule=linear,slow", "seed=1,-1", "experiment=swept"])
def test_no_job_starts_where_a_value_is_wrong(command, world, tmp_path, word):
    (tmp_path / "experiment").mkdir()
    params = "hydra:\n  sweeper:\n    params:\n      sft.epochs: 1,0\n"
    (tmp_path / "experiment" / "swept.yaml").write_text(f"# @package _global_\n{params}")
    outcome = command(
        "-m", *[one for one in world.sft(word) if not one.startswith("sft.epochs=1") or one == word], "--config-dir", str(tmp_path)
    )
    assert outcome.code == 2, outcome.error
    assert outcome.error.startswith("error: ")
    assert outcome.error.count("\n") == 1
    assert not list(outcome.folder.glob("*/"))
